/**
 * Batches on the wire. A header of fixed size that can be read without inflating, then the body (`batch-body.ts`,
 * `thinned-body.ts`; of a lost batch, msgpack of [reason]), compressed if that makes it smaller. Numbers are little-endian.
 *
 *   at  bytes
 *    0   1     version
 *    1   4     CRC-32 of all other bytes: byte 0, then 5 to the end
 *    5   1     compression of the body: index into `compressions`
 *    6   1     settlement: index into `settlements`
 *    7  16     logId
 *   23   6     first sequence
 *   29   4     count
 *   33   4     bytes of the body when inflated
 *   37         body
 *
 * A heartbeat has settlement 3 and neither sequences nor count (both 0); its body, never compressed, is msgpack of
 * [at, completeUntil, hearingSince or -1, coversSite as 0 or 1, identity of the stream (older gateways leave it out)].
 *
 * Bytes 0 to 4 mean the same in every version, so that a damaged byte is never taken for a new version.
 *
 *   checksum wrong, header impossible → corrupt          transport damage: nothing is settled, it is sent again (I)
 *   version not known                 → unknown-version  refused, never settled
 *   body not decodable                → poison           quarantined, the range settled (H)
 *   a heartbeat                       → heartbeat        one that is no good is corrupt: the next one says the same (H)
 *   else                              → batch            free of faults by `batch-rules.ts`
 */
import {
  constants,
  crc32,
  deflateRawSync,
  inflateRawSync,
  zstdCompressSync,
  zstdDecompressSync,
} from 'node:zlib';
import type { Batch } from './batch.ts';
import { decodeBody, encodeBody } from './batch-body.ts';
import { batchBounds, batchFault } from './batch-rules.ts';
import { MalformedError } from './bit-stream.ts';
import { type Heartbeat, heartbeatFault } from './heartbeat.ts';
import { isLogId, type LogId } from './ids.ts';
import { limits } from './limits.ts';
import { packPlain, unpackPlain } from './plain-msgpack.ts';
import { decodeThinnedBody, encodeThinnedBody } from './thinned-body.ts';

export const WIRE_VERSION = 1;

const compressions = ['none', 'deflate', 'zstd'] as const;
export type Compression = (typeof compressions)[number];
const settlements = ['raw', 'lost', 'thinned', 'heartbeat'] as const satisfies readonly (
  | Batch['settlement']
  | Heartbeat['settlement']
)[];

const HEADER_BYTES = 37;
const HEARTBEAT_BODY_BYTES_MAX = 128;
/** The array and what is in it. */
const HEARTBEAT_ITEMS = 6;
const At = { version: 0, checksum: 1, covered: 5, compression: 5, settlement: 6, logId: 7 } as const;
const AtNumber = { firstSequence: 23, count: 29, inflatedBytes: 33 } as const;

export type DecodeOutcome =
  | { readonly outcome: 'batch'; readonly batch: Batch }
  /** Settles nothing. */
  | { readonly outcome: 'heartbeat'; readonly heartbeat: Heartbeat }
  /** A sender newer than we are: refused, never settled. */
  | { readonly outcome: 'unknown-version'; readonly version: number }
  /** Damaged on the way: nothing is settled, the gateway sends again (invariant I). */
  | { readonly outcome: 'corrupt'; readonly reason: string }
  /** Arrived as it was sent, and cannot be decoded: quarantined, its range settled (invariant H). */
  | {
      readonly outcome: 'poison';
      readonly reason: string;
      readonly logId: LogId;
      readonly firstSequence: number;
      readonly count: number;
    };

/**
 * @param options.compression what to try on the body; it is left out when it does not help
 * @throws RangeError when the batch breaks a rule of `batch-rules.ts` or comes out over `limits.batchWireBytesMax`:
 *   a bug of the caller
 */
export function encodeBatch(batch: Batch, options: { compression?: Compression } = {}): Buffer {
  const bytes = encodeBatchWithin(batch, options);
  if (!bytes) throw new RangeError(`a batch of ${batch.count} messages comes out over the limit`);
  return bytes;
}

/**
 * The same, for who can do with fewer messages.
 * @returns null when the batch comes out over `limits.batchWireBytesMax`, or `limits.batchInflatedBytesMax` when inflated
 * @throws RangeError when the batch breaks a rule of `batch-rules.ts`: a bug of the caller
 */
export function encodeBatchWithin(batch: Batch, options: { compression?: Compression } = {}): Buffer | null {
  const fault = batchFault(batch);
  if (fault) throw new RangeError(`not a batch: ${fault}`);
  const body = bodyOf(batch);
  if (body.length > limits.batchInflatedBytesMax) return null;
  const { compression, packed } = compress(body, options.compression ?? 'zstd');
  if (HEADER_BYTES + packed.length > limits.batchWireBytesMax) return null;

  return sealed(batch, compression, body.length, packed);
}

/** @throws RangeError when its times make no sense: a bug of the caller */
export function encodeHeartbeat(heartbeat: Heartbeat): Buffer {
  const { logId, at, completeUntil, hearingSince, coversSite, streamCreated } = heartbeat;
  const fault = isLogId(logId) ? heartbeatFault(heartbeat) : 'the log id is not one';
  if (fault) throw new RangeError(`not a heartbeat: ${fault}`);
  const times = [at, completeUntil, hearingSince ?? -1, Number(coversSite)];
  const body = packPlain(streamCreated === undefined ? times : [...times, streamCreated]);
  return sealed({ settlement: 'heartbeat', logId, firstSequence: 0, count: 0 }, 'none', body.length, body);
}

function sealed(
  header: {
    readonly settlement: (typeof settlements)[number];
    readonly logId: LogId;
    readonly firstSequence: number;
    readonly count: number;
  },
  compression: Compression,
  inflatedBytes: number,
  packed: Buffer,
): Buffer {
  const bytes = Buffer.allocUnsafe(HEADER_BYTES + packed.length);
  bytes[At.version] = WIRE_VERSION;
  bytes[At.compression] = compressions.indexOf(compression);
  bytes[At.settlement] = settlements.indexOf(header.settlement);
  bytes.write(header.logId, At.logId, 'hex');
  bytes.writeUIntLE(header.firstSequence, AtNumber.firstSequence, 6);
  bytes.writeUInt32LE(header.count, AtNumber.count);
  bytes.writeUInt32LE(inflatedBytes, AtNumber.inflatedBytes);
  packed.copy(bytes, HEADER_BYTES);
  bytes.writeUInt32LE(checksumOf(bytes), At.checksum);
  return bytes;
}

/** Decodes one batch. Never throws, whatever the bytes; memory and time are bounded by `limits`. */
export function decodeBatch(input: Uint8Array): DecodeOutcome {
  const bytes = Buffer.from(input.buffer, input.byteOffset, input.byteLength);
  if (bytes.length < HEADER_BYTES)
    return { outcome: 'corrupt', reason: `${bytes.length} bytes are no batch` };
  if (bytes.readUInt32LE(At.checksum) !== checksumOf(bytes)) {
    return { outcome: 'corrupt', reason: 'the checksum is wrong' };
  }
  const version = bytes[At.version]!;
  if (version !== WIRE_VERSION) return { outcome: 'unknown-version', version };

  const settlement = settlements[bytes[At.settlement]!];
  const logId = bytes.toString('hex', At.logId, AtNumber.firstSequence) as LogId;
  const firstSequence = bytes.readUIntLE(AtNumber.firstSequence, 6);
  const count = bytes.readUInt32LE(AtNumber.count);
  if (settlement === 'heartbeat') return heartbeatIn(bytes, logId, firstSequence, count);
  const countMax = settlement === 'raw' ? limits.batchMessagesMax : batchBounds.lostMax;
  if (!settlement || count < 1 || count > countMax) {
    return {
      outcome: 'corrupt',
      reason: `an impossible header: settlement ${bytes[At.settlement]}, ${count} sequences`,
    };
  }
  const poison = (reason: string): DecodeOutcome => ({
    outcome: 'poison',
    reason,
    logId,
    firstSequence,
    count,
  });
  if (bytes.length > limits.batchWireBytesMax) return poison(`${bytes.length} bytes are over the limit`);

  const body = inflate(bytes);
  if (!body) return poison('the body does not inflate to the length it states');
  try {
    const batch = batchOf(settlement, body, logId, firstSequence, count);
    const fault = batchFault(batch);
    return fault ? poison(fault) : { outcome: 'batch', batch };
  } catch (error) {
    if (error instanceof MalformedError) return poison(error.message);
    // No input is known to lead here; if one does, the batch is set aside like any other and all else goes on (H).
    return poison(`the decoder failed: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function heartbeatIn(bytes: Buffer, logId: LogId, firstSequence: number, count: number): DecodeOutcome {
  const corrupt = (reason: string): DecodeOutcome => ({ outcome: 'corrupt', reason });
  if (firstSequence !== 0 || count !== 0) return corrupt('a heartbeat with sequences');
  if (bytes[At.compression] !== 0 || bytes.length - HEADER_BYTES > HEARTBEAT_BODY_BYTES_MAX) {
    return corrupt('a heartbeat with more than its times');
  }
  const body = bytes.subarray(HEADER_BYTES);
  if (bytes.readUInt32LE(AtNumber.inflatedBytes) !== body.length)
    return corrupt('a heartbeat of another length');
  try {
    const heartbeat = heartbeatOf(unpackPlain(body, HEARTBEAT_ITEMS), logId);
    const fault = heartbeatFault(heartbeat);
    return fault ? corrupt(fault) : { outcome: 'heartbeat', heartbeat };
  } catch (error) {
    return corrupt((error as Error).message);
  }
}

function heartbeatOf(value: unknown, logId: LogId): Heartbeat {
  const items = Array.isArray(value) ? value : [];
  const numbers = items.slice(0, 4);
  if (numbers.length !== 4 || items.length > 5 || !numbers.every(item => typeof item === 'number')) {
    throw new MalformedError('a heartbeat without its times');
  }
  const [at, completeUntil, hearing, covers] = numbers as [number, number, number, number];
  const streamCreated: unknown = items[4];
  if (streamCreated !== undefined && typeof streamCreated !== 'string')
    throw new MalformedError('a heartbeat about a stream without a name');
  if (covers !== 0 && covers !== 1)
    throw new MalformedError('a heartbeat that neither covers its site nor not');
  const hearingSince = hearing === -1 ? null : hearing;
  return {
    settlement: 'heartbeat',
    logId,
    at,
    completeUntil,
    hearingSince,
    coversSite: covers === 1,
    ...(streamCreated !== undefined && { streamCreated }),
  };
}

function bodyOf(batch: Batch): Buffer {
  switch (batch.settlement) {
    case 'raw':
      return encodeBody(batch);
    case 'lost':
      return packPlain([batch.reason]);
    case 'thinned':
      return encodeThinnedBody(batch);
  }
}

function batchOf(
  settlement: Batch['settlement'],
  body: Buffer,
  logId: LogId,
  firstSequence: number,
  count: number,
): Batch {
  switch (settlement) {
    case 'raw':
      return decodeBody(body, logId, firstSequence, count);
    case 'lost':
      return { settlement, logId, firstSequence, count, reason: reasonOf(body) };
    case 'thinned':
      return decodeThinnedBody(body, logId, firstSequence, count);
  }
}

const checksumOf = (bytes: Buffer): number =>
  crc32(bytes.subarray(At.covered), crc32(bytes.subarray(0, At.checksum)));

function compress(body: Buffer, wanted: Compression): { compression: Compression; packed: Buffer } {
  if (wanted !== 'none') {
    const packed = wanted === 'zstd' ? zstdCompressSync(body) : deflateRawSync(body);
    if (packed.length < body.length) return { compression: wanted, packed };
  }
  return { compression: 'none', packed: body };
}

/** @returns the body, or null; never holds more than the header states, which is bounded. */
function inflate(bytes: Buffer): Buffer | null {
  const inflatedBytes = bytes.readUInt32LE(AtNumber.inflatedBytes);
  if (inflatedBytes < 1 || inflatedBytes > limits.batchInflatedBytesMax) return null;
  const packed = bytes.subarray(HEADER_BYTES);
  const bound = { maxOutputLength: inflatedBytes };
  try {
    const compression = compressions[bytes[At.compression]!];
    let body: Buffer;
    if (compression === 'none') body = packed;
    else if (compression === 'deflate') body = inflateRawSync(packed, bound);
    else if (compression === 'zstd') {
      body = zstdDecompressSync(packed, { ...bound, params: { [constants.ZSTD_d_windowLogMax]: 24 } });
    } else return null;
    return body.length === inflatedBytes ? body : null;
  } catch {
    return null;
  }
}

function reasonOf(body: Buffer): string {
  const value = unpackPlain(body, 2);
  const reason = Array.isArray(value) && value.length === 1 ? value[0] : null;
  if (typeof reason !== 'string') throw new MalformedError('a lost batch without its reason');
  return reason;
}
