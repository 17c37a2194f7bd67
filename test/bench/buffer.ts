/**
 * What waits on the disk of an edge box: the standard fleet of one site (500 devices, a message per second each, four
 * readings per message) fills a buffer of 1 GiB with frames; then all of it is compacted into blocks. From the bytes
 * of those follows what 1 GB holds: that many bytes divided by the bytes per reading of all messages that were stored, headers
 * of files included. Real recordings go the same way, each as a device of its own.
 *
 * The time to open a full buffer is measured on the frames as they are, and on the blocks copied until they fill
 * the buffer; files are in the page cache.
 */
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { startCompactor } from '../../edge-gateway/log/compactor.ts';
import {
  type BufferOptions,
  type DiskBuffer,
  type Message,
  openDiskBuffer,
} from '../../edge-gateway/log/disk-buffer.ts';
import { blocksPath, parseSegmentName, segmentPath } from '../../edge-gateway/log/segment.ts';
import { NO_MAPPING } from '../../edge-gateway/mapping/mapping-file.ts';
import type { Benchmark } from './benchmark.ts';
import { standardFleet } from './standard-fleet.ts';
import { median, rounded, table } from './tables.ts';

const GIB = 1024 ** 3;
const GB = 1e9;
const READINGS_PER_MESSAGE = 4;
const DEVICES = 500;
const OPENINGS = 5;
const AT_A_TIME = 1000;
/** As the gateway keeps them. */
const KEEP_MESSAGES = 32_768;

export const buffer: Benchmark = {
  does: 'bytes per reading in the disk buffer, what 1 GB holds, compaction, start with a full buffer',
  async run({ directory, messages, recordings, report }) {
    const fleetDirectory = join(directory, 'fleet');
    report('filling a buffer with the standard fleet');
    const frames = await storeAll(fleetDirectory, fleet(messages ?? Number.POSITIVE_INFINITY));
    report(`${frames.messages} messages in ${rounded(frames.bytes / 1e6, 1)} MB of frames; opening`);
    const openFramesMs = await openingMs(fleetDirectory);
    report('compacting');
    const blocks = await compactAll(fleetDirectory);
    const bytesPerReading = blocks.bytes / (frames.messages * READINGS_PER_MESSAGE);
    report(`${rounded(blocks.bytes / 1e6, 1)} MB of blocks; filling a buffer with them`);
    const files = fillWithBlocks(fleetDirectory);
    const openBlocksMs = await openingMs(fleetDirectory);
    rmSync(fleetDirectory, { recursive: true });
    const real = recordings === undefined ? [] : await storeRecordings(recordings, directory, report);
    const held = Math.floor(GB / bytesPerReading);
    const figures = {
      messages: frames.messages,
      readings: frames.messages * READINGS_PER_MESSAGE,
      frame_bytes_per_reading: rounded(frames.bytes / frames.messages / READINGS_PER_MESSAGE, 2),
      block_bytes_per_reading: rounded(bytesPerReading, 3),
      readings_per_gb: held,
      append_messages_per_second: Math.round(frames.messages / frames.seconds),
      compaction_messages_per_second: Math.round(frames.messages / blocks.seconds),
      compaction_cpu_us_per_message: rounded((blocks.cpuSeconds * 1e6) / frames.messages, 2),
      open_full_frames_ms: rounded(openFramesMs, 1),
      open_full_blocks_ms: rounded(openBlocksMs, 1),
      full_blocks_files: files,
      recordings: Object.fromEntries(real.map(({ name, bytesPerReading: each }) => [name, rounded(each, 2)])),
    };
    const rows = [
      ['standard fleet of one site, 500 devices', ''],
      ['readings stored', figures.readings],
      ['bytes per reading, as frames', figures.frame_bytes_per_reading],
      ['bytes per reading, as blocks', figures.block_bytes_per_reading],
      ['readings in 1 GB of blocks', figures.readings_per_gb],
      ['compaction, messages/s', figures.compaction_messages_per_second],
      ['compaction, CPU µs per message', figures.compaction_cpu_us_per_message],
      ['opening 1 GiB of frames, ms', figures.open_full_frames_ms],
      [`opening 1 GiB of blocks (${files} files), ms`, figures.open_full_blocks_ms],
    ];
    const recorded = real.map(({ name, readings, bytesPerReading: each }) => [
      name,
      readings,
      rounded(each, 2),
    ]);
    const tables = [table(rows)];
    if (real.length > 0) {
      tables.push(table([['recording', 'readings', 'bytes per reading, as blocks'], ...recorded]));
    }
    return { tables, figures };
  },
};

function* fleet(count: number): Generator<Message> {
  let left = count;
  let arrivedAt = 0;
  for (const { ts, topic, payload } of standardFleet({ devices: DEVICES, sites: 1 })) {
    if (left-- <= 0) return;
    // Some milliseconds on the way, and in the order of arrival.
    arrivedAt = Math.max(arrivedAt, ts + 2);
    yield publish(topic, payload, arrivedAt);
  }
}

function publish(topic: string, text: string, receivedAt: number): Message {
  const payload = Buffer.from(text);
  return {
    receivedAt,
    monotonicMs: receivedAt % 1e9,
    qos: 1,
    retain: false,
    duplicate: false,
    packetId: 1,
    topic,
    payload,
    payloadBytes: payload.length,
  };
}

async function open(directory: string, more: Partial<BufferOptions> = {}): Promise<DiskBuffer> {
  const opened = await openDiskBuffer({
    directory,
    bytesMax: GIB,
    bootId: 'bench',
    logger: { info() {}, warn() {}, error() {} },
    ...more,
  });
  if (opened.outcome === 'unusable') throw new Error(opened.reason);
  return opened.buffer;
}

/** Until the messages end or the buffer is full. */
async function storeAll(directory: string, messages: Iterable<Message>) {
  const opened = await open(directory);
  const startedAt = performance.now();
  let full = false;
  let waiting: Promise<void>[] = [];
  let turn: Promise<unknown> = Promise.resolve();
  for (const message of messages) {
    const durable = Promise.withResolvers<void>();
    full = opened.append(message, durable.resolve) === 'full';
    if (full) break;
    waiting.push(durable.promise);
    if (waiting.length < AT_A_TIME) continue;
    // The next ones are made while these become durable.
    await turn;
    turn = Promise.all(waiting);
    waiting = [];
  }
  await turn;
  await Promise.all(waiting);
  const seconds = (performance.now() - startedAt) / 1000;
  const { bytes, messagesAppended } = opened.stats();
  await opened.close();
  return { bytes, messages: messagesAppended, seconds };
}

async function compactAll(directory: string) {
  const startedAt = performance.now();
  const cpuBefore = process.cpuUsage();
  const done = Promise.withResolvers<void>();
  const opened = await open(directory, {
    logger: { info: look, warn: look, error: look },
    compaction: { compactor: startCompactor(NO_MAPPING), keepMessages: 0, nearFull: 'push-back', waitMs: 0 },
  });
  let failure = '';
  function look(details: object, text: string): void {
    if (text.includes('could not be compacted')) failure = JSON.stringify(details);
    setImmediate(() => {
      if (failure) done.reject(new Error(failure));
      else if (opened.stats().segmentsWaiting === 0) done.resolve();
    });
  }
  await done.promise;
  const seconds = (performance.now() - startedAt) / 1000;
  const { user, system } = process.cpuUsage(cpuBefore);
  const { bytes } = opened.stats();
  await opened.close();
  return { bytes, seconds, cpuSeconds: (user + system) / 1e6 };
}

/** With the newest messages read, as at every start of a gateway. */
async function openingMs(directory: string): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < OPENINGS; i++) {
    const startedAt = performance.now();
    const opened = await open(directory);
    await opened.recentFrames(KEEP_MESSAGES);
    times.push(performance.now() - startedAt);
    await opened.close();
  }
  return median(times);
}

/** Copies the blocks behind one another until they fill 1 GiB. @returns how many files there are */
function fillWithBlocks(directory: string): number {
  const [logId] = readdirSync(directory).filter(name => name.length === 32);
  const folder = join(directory, logId!);
  const originals = readdirSync(folder).filter(name => name.endsWith('.blocks'));
  const span = Math.max(...originals.map(name => parseSegmentName(name)!.firstSequence)) + 1_000_000;
  let bytes = 0;
  let files = 0;
  for (let round = 0; ; round++) {
    for (const name of originals) {
      const source = join(folder, name);
      bytes += statSync(source).size;
      files++;
      if (bytes > GIB) return files - 1;
      if (round === 0) continue;
      const firstSequence = parseSegmentName(name)!.firstSequence + round * span;
      copyFileSync(source, blocksPath(segmentPath(folder, firstSequence, 0), 0));
    }
  }
}

async function storeRecordings(folder: string, directory: string, report: (line: string) => void) {
  const found: { name: string; readings: number; bytesPerReading: number }[] = [];
  const files = readdirSync(folder).filter(name => name.endsWith('.csv'));
  if (files.length === 0) throw new Error(`no .csv in ${folder}`);
  for (const file of files) {
    const name = file.slice(0, -4);
    report(`recording ${name}`);
    const own = join(directory, name);
    mkdirSync(own);
    const { messages } = await storeAll(own, recording(join(folder, file), name));
    const { bytes } = await compactAll(own);
    found.push({ name, readings: messages, bytesPerReading: bytes / messages });
    rmSync(own, { recursive: true });
  }
  return found;
}

/** Lines `timestamp,value` in UTC. */
function* recording(path: string, device: string): Generator<Message> {
  const lines = readFileSync(path, 'utf8').trim().split('\n').slice(1);
  for (const line of lines) {
    const [time = '', value = ''] = line.split(',');
    const ts = Date.parse(`${time.replace(' ', 'T')}Z`);
    if (Number.isNaN(ts)) throw new Error(`${path}: not a time: ${line}`);
    yield publish(`devices/${device}/telemetry`, `{"ts":${ts},"value":${Number(value)}}`, ts + 40);
  }
}
