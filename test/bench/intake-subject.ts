/**
 * A subscriber of the intake benchmark, a process of its own, which tells how many messages it has acknowledged.
 *
 *   `--as null`     acknowledges at once and does nothing else
 *   `--as gateway`  Holdfast's own intake: PUBACK after the fdatasync of the disk buffer
 */
import { connect } from 'node:net';
import { parseArgs } from 'node:util';
import mqttPacket from 'mqtt-packet';
import pino from 'pino';
import { startIntake } from '../../edge-gateway/intake.ts';
import { openDiskBuffer } from '../../edge-gateway/log/disk-buffer.ts';
import { newRedelivery } from '../../edge-gateway/redelivery.ts';
import { gatewayId, siteId } from '../../protocol/ids.ts';

export interface IntakeProgress {
  readonly type: 'progress';
  readonly acknowledged: number;
}

const PROGRESS_MS = 5;
const RECEIVE_MAXIMUM = 8192;
const MESSAGES_FILTER = 'devices/+/telemetry';

const { values: options } = parseArgs({
  options: { as: { type: 'string' }, broker: { type: 'string' }, directory: { type: 'string' } },
});
let acknowledged = 0;
let told = 0;
setInterval(() => {
  if (acknowledged !== told) process.send?.({ type: 'progress', acknowledged } satisfies IntakeProgress);
  told = acknowledged;
}, PROGRESS_MS);
process.on('SIGTERM', () => process.exit(0));
process.on('disconnect', () => process.exit(0));

if (options.as === 'gateway') await startGatewayIntake();
else await startNullSubscriber();
process.send?.({ type: 'ready' });

async function startGatewayIntake(): Promise<void> {
  const logger = pino({ level: 'warn' });
  const bytesMax = 4 * 1024 ** 3;
  const opened = await openDiskBuffer({ directory: options.directory!, bytesMax, bootId: 'bench', logger });
  if (opened.outcome !== 'open') throw new Error(opened.reason);
  const { buffer } = opened;
  const intake = startIntake({
    config: {
      mqttUrl: options.broker!,
      site: siteId('bench'),
      gateway: gatewayId('gw-1'),
      topics: [MESSAGES_FILTER],
      receiveMaximum: RECEIVE_MAXIMUM,
    },
    buffer,
    redelivery: newRedelivery({ receiveMaximum: RECEIVE_MAXIMUM, window: 32_768 }),
    logger,
  });
  buffer.onDurable(() => {
    const stats = buffer.stats();
    acknowledged = stats.messagesAppended - stats.messagesPending;
  });
  while (!intake.broker.connected) await new Promise(resolve => setTimeout(resolve, 20));
}

/** Reads PUBLISH frames off the socket and writes their PUBACKs, all of a chunk in one write. */
async function startNullSubscriber(): Promise<void> {
  const { hostname, port, username, password } = new URL(options.broker!);
  const socket = connect(Number(port), hostname);
  socket.setNoDelay(true);
  const parser = mqttPacket.parser({ protocolVersion: 5 });
  await new Promise<void>(resolve => {
    parser.on('packet', packet => {
      if (packet.cmd === 'connack') {
        socket.write(
          mqttPacket.generate(
            {
              cmd: 'subscribe',
              messageId: 1,
              subscriptions: [{ topic: MESSAGES_FILTER, qos: 1, nl: false, rap: false, rh: 1 }],
            },
            { protocolVersion: 5 },
          ),
        );
      }
      if (packet.cmd === 'suback') resolve();
    });
    socket.on('data', chunk => parser.parse(chunk));
    socket.write(
      mqttPacket.generate({
        cmd: 'connect',
        protocolId: 'MQTT',
        protocolVersion: 5,
        clientId: 'null-subscriber',
        clean: true,
        keepalive: 0,
        username: decodeURIComponent(username),
        password: Buffer.from(decodeURIComponent(password)),
        properties: { receiveMaximum: RECEIVE_MAXIMUM },
      }),
    );
  });
  socket.removeAllListeners('data');
  let partial: Buffer = Buffer.alloc(0);
  socket.on('data', chunk => {
    const bytes = partial.length === 0 ? chunk : Buffer.concat([partial, chunk]);
    const acks: number[] = [];
    let offset = 0;
    for (;;) {
      const end = packetEnd(bytes, offset);
      if (end === null || end > bytes.length) break;
      const first = bytes[offset]!;
      if (first >> 4 === 3 && (first & 6) === 2) acks.push(packetIdAt(bytes, offset));
      offset = end;
    }
    partial = bytes.subarray(offset);
    const answer = Buffer.allocUnsafe(acks.length * 4);
    for (const [index, id] of acks.entries()) {
      answer.writeUInt16BE(0x4002, index * 4);
      answer.writeUInt16BE(id, index * 4 + 2);
    }
    socket.write(answer);
    acknowledged += acks.length;
  });
}

/** Where the packet at `offset` ends; null when its length is not there yet. */
function packetEnd(bytes: Buffer, offset: number): number | null {
  let length = 0;
  for (let i = 1; i <= 4; i++) {
    const byte = bytes[offset + i];
    if (byte === undefined) return null;
    length += (byte & 127) * 128 ** (i - 1);
    if (byte < 128) return offset + 1 + i + length;
  }
  throw new Error('a packet length of over four bytes');
}

function packetIdAt(bytes: Buffer, offset: number): number {
  let header = offset + 1;
  while (bytes[header++]! >= 128);
  return bytes.readUInt16BE(header + 2 + bytes.readUInt16BE(header));
}
