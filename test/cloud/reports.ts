/** What a gateway reports when all is well, for tests that play one. */
import type { GatewayReport } from '../../protocol/handshake.ts';

export const reportOf = (more: Partial<GatewayReport> = {}): GatewayReport => ({
  bufferBytes: 1_000_000,
  bufferBytesMax: 1_000_000_000,
  unsettledMessages: 0,
  messages: 100,
  dropped: 0,
  syncMs: 2,
  broker: { connected: true, reason: null },
  oldestUnsettledAt: null,
  wireBytesLeft: 0,
  forecast: { fullInSeconds: null, drainedInSeconds: null },
  thinnedMessages: 0,
  lostMessages: 0,
  dataBudget: null,
  role: 'active',
  ...more,
});
