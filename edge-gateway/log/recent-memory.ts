/**
 * The newest frames of the current log in memory, in chunks: first as the group that waits for its fdatasync, then,
 * durable, as what readers that keep up are served from. A frame is encoded once, into the place where both find it.
 *
 *   chunks:  [ durable | durable | durable … waiting ]   sequences rise, without gaps
 *            ^ dropped first when over `bytesMax`
 *
 * Chunks are never written to twice, so views of them stay right for as long as somebody holds them. What waits is
 * bounded by the caller; durable chunks beyond `bytesMax` are dropped (invariant F).
 */
import type { Frame, Message } from './frame.ts';
import { decodeFrame, encodeFrame, frameBytesAtMost, frameLengthAt } from './frame.ts';

const MARK_EVERY = 256;

interface Chunk {
  readonly buffer: Buffer;
  readonly view: DataView;
  readonly firstSequence: number;
  nextSequence: number;
  bytes: number;
  durableBytes: number;
  durableSequence: number;
  /** Offset of every 256th frame. */
  readonly marks: number[];
  /** By sequence - firstSequence; let go of once called. */
  readonly callbacks: ((() => void) | null)[];
}

/** A run of waiting frames, contiguous in memory. */
export interface Group {
  readonly chunk: Chunk;
  readonly bytes: Buffer;
  readonly firstSequence: number;
  readonly nextSequence: number;
}

export interface ReadLimits {
  /** One past the last wanted. */
  readonly toSequence: number;
  readonly messagesMax: number;
  readonly bytesMax: number;
}

export interface RecentMemory {
  /** @returns bytes of the frame. @throws as encodeFrame; then nothing was stored */
  append(message: Message, sequence: number, onDurable: () => void): number;
  readonly pendingBytes: number;
  /** The oldest waiting frames, or null when none waits. */
  nextGroup(): Group | null;
  /** Marks the group durable. @returns its callbacks, in order */
  settleGroup(group: Group): (() => void)[];
  /** The first sequence that is in memory and durable; frames from here to the durable end can be read. */
  firstSequence(): number;
  /** Adds to `frames`, which hold `bytes` of payload already; the limits are those of the whole. */
  readOn(fromSequence: number, limits: ReadLimits, frames: Frame[], bytes: number): void;
}

export function createRecentMemory(o: { salt: number; chunkBytes: number; bytesMax: number }): RecentMemory {
  const chunks: Chunk[] = [];
  let allocatedBytes = 0;
  let pendingBytes = 0;

  function tailFor(bytes: number, sequence: number): Chunk {
    const tail = chunks.at(-1);
    if (tail && tail.bytes + bytes <= tail.buffer.length) return tail;
    const buffer = Buffer.allocUnsafeSlow(Math.max(bytes, o.chunkBytes));
    const chunk: Chunk = {
      buffer,
      view: new DataView(buffer.buffer, buffer.byteOffset, buffer.length),
      firstSequence: sequence,
      nextSequence: sequence,
      bytes: 0,
      durableBytes: 0,
      durableSequence: sequence,
      marks: [],
      callbacks: [],
    };
    if (tail && tail.nextSequence === tail.firstSequence) allocatedBytes -= chunks.pop()!.buffer.length;
    chunks.push(chunk);
    allocatedBytes += buffer.length;
    dropOld();
    return chunk;
  }

  function dropOld(): void {
    while (chunks.length > 1 && allocatedBytes > o.bytesMax) {
      const oldest = chunks[0]!;
      if (oldest.durableBytes < oldest.bytes) return;
      chunks.shift();
      allocatedBytes -= oldest.buffer.length;
    }
  }

  /** Index of the last chunk that starts at or before `sequence`, or -1. */
  function chunkIndexAt(sequence: number): number {
    let low = 0;
    let high = chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (chunks[middle]!.firstSequence <= sequence) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  return {
    append(message, sequence, onDurable) {
      const chunk = tailFor(frameBytesAtMost(message), sequence);
      const length = encodeFrame(chunk.buffer, chunk.view, chunk.bytes, message, sequence, o.salt);
      if ((sequence - chunk.firstSequence) % MARK_EVERY === 0) chunk.marks.push(chunk.bytes);
      chunk.bytes += length;
      chunk.nextSequence = sequence + 1;
      chunk.callbacks.push(onDurable);
      pendingBytes += length;
      return length;
    },

    get pendingBytes() {
      return pendingBytes;
    },

    nextGroup() {
      if (pendingBytes === 0) return null;
      let index = chunks.length - 1;
      while (index > 0 && chunks[index - 1]!.durableBytes < chunks[index - 1]!.bytes) index--;
      const chunk = chunks[index]!;
      return {
        chunk,
        bytes: chunk.buffer.subarray(chunk.durableBytes, chunk.bytes),
        firstSequence: chunk.durableSequence,
        nextSequence: chunk.nextSequence,
      };
    },

    settleGroup({ chunk, bytes, firstSequence, nextSequence }) {
      chunk.durableBytes += bytes.length;
      chunk.durableSequence = nextSequence;
      pendingBytes -= bytes.length;
      const callbacks: (() => void)[] = [];
      for (let i = firstSequence - chunk.firstSequence; i < nextSequence - chunk.firstSequence; i++) {
        callbacks.push(chunk.callbacks[i]!);
        chunk.callbacks[i] = null;
      }
      dropOld();
      return callbacks;
    },

    firstSequence: () => chunks[0]?.firstSequence ?? Number.POSITIVE_INFINITY,

    readOn(fromSequence, { toSequence, messagesMax, bytesMax }, frames, bytesBefore) {
      let bytes = bytesBefore;
      let sequence = fromSequence;
      for (let index = chunkIndexAt(sequence); index >= 0 && index < chunks.length; index++) {
        const chunk = chunks[index]!;
        const to = Math.min(toSequence, chunk.durableSequence);
        if (sequence >= to) break;
        const mark = Math.floor((sequence - chunk.firstSequence) / MARK_EVERY);
        let offset = chunk.marks[mark]!;
        for (let skip = chunk.firstSequence + mark * MARK_EVERY; skip < sequence; skip++) {
          offset += frameLengthAt(chunk.view, offset);
        }
        for (; sequence < to; sequence++) {
          if (frames.length >= messagesMax) return;
          const frame = decodeFrame(chunk.buffer, chunk.view, offset);
          bytes += frame.payload.length;
          if (bytes > bytesMax && frames.length > 0) return;
          frames.push(frame);
          offset += frameLengthAt(chunk.view, offset);
        }
      }
    },
  };
}
