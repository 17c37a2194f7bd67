/** What the tests of the log share: folders that go away, messages that can be told apart, reading all there is. */
import assert from 'node:assert/strict';
import * as fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type {
  BufferOptions,
  DiskBuffer,
  Frame,
  LogInfo,
  Message,
} from '../../../edge-gateway/log/disk-buffer.ts';
import { openDiskBuffer } from '../../../edge-gateway/log/disk-buffer.ts';
import type { LogId } from '../../../protocol/ids.ts';

export const silent = { info() {}, warn() {}, error() {} };

export async function makeTemporaryFolder(): Promise<string> {
  return fs.mkdtemp(join(tmpdir(), 'holdfast-log-'));
}

export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await makeTemporaryFolder();
  t.after(() => fs.rm(folder, { recursive: true, force: true }));
  return folder;
}

/** @param id is found again in the payload; the rest differs from message to message */
export function message(id: number, payloadLength = 12): Message {
  const payload = Buffer.alloc(Math.max(12, payloadLength), id % 251);
  payload.write(String(id).padStart(12, '0'), 0, 'latin1');
  return {
    receivedAt: 1_700_000_000_000 + id,
    monotonicMs: id + 0.25,
    qos: (id % 3) as 0 | 1 | 2,
    retain: id % 5 === 0,
    duplicate: id % 7 === 0,
    packetId: id % 65_536,
    topic: `devices/gerät-${id % 9}/telemetry`,
    payload,
    payloadBytes: payload.length + (id % 11),
  };
}

export const idOf = (frame: Frame): number => Number(Buffer.from(frame.payload).toString('latin1', 0, 12));

/** The frame must be, byte for byte, message `idOf(frame)` (invariant I). */
export function assertUnchanged(frame: Frame): void {
  const { sequence, payload, ...rest } = frame;
  const expected = message(idOf(frame), payload.length);
  assert.ok(sequence > 0);
  assert.deepEqual({ ...rest, payload: Buffer.from(payload) }, expected);
}

export async function open(directory: string, options: Partial<BufferOptions> = {}): Promise<DiskBuffer> {
  const opened = await openDiskBuffer({
    directory,
    bytesMax: 64 * 1024 * 1024,
    bootId: 'boot',
    logger: silent,
    ...options,
  });
  assert.equal(opened.outcome, 'open', JSON.stringify(opened));
  return (opened as { buffer: DiskBuffer }).buffer;
}

/** Appends and waits for the disk. */
export async function store(buffer: DiskBuffer, messages: readonly Message[]): Promise<void> {
  await Promise.all(
    messages.map(one => new Promise<void>(resolve => assert.equal(buffer.append(one, resolve), 'accepted'))),
  );
}

export const infoOf = (buffer: DiskBuffer, logId: LogId): LogInfo => {
  const info = buffer.logs().find(log => log.logId === logId);
  assert.ok(info, `log ${logId} is there`);
  return info;
};

/** Of a buffer that compacts nothing. */
export async function readFrames(
  buffer: DiskBuffer,
  ...asked: Parameters<DiskBuffer['read']>
): Promise<readonly Frame[]> {
  const run = await buffer.read(...asked);
  assert.ok(run.form === 'frames');
  return run.frames;
}

export async function readAll(buffer: DiskBuffer, logId: LogId, messagesMax = 7): Promise<Frame[]> {
  const frames: Frame[] = [];
  for (let next = 1; ; next = frames.at(-1)!.sequence + 1) {
    const some = await readFrames(buffer, logId, next, { messagesMax, bytesMax: 1_000_000 });
    if (some.length === 0) return frames;
    for (const frame of some) {
      assert.ok(frame.sequence >= next, 'sequences rise');
      next = frame.sequence + 1;
      assertUnchanged(frame);
      frames.push(frame);
    }
  }
}

/** The one log folder's segments, in order. */
export async function segmentsOf(directory: string, logId: LogId): Promise<string[]> {
  const names = (await fs.readdir(join(directory, logId))).filter(name => name.endsWith('.segment'));
  return names.sort().map(name => join(directory, logId, name));
}

export const range = (from: number, to: number): number[] =>
  Array.from({ length: to - from }, (_, index) => from + index);
