/** Sparkplug messages between broker and log, with a real folder: what is durable when, restarts, a disk that refuses. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import pino from 'pino';
import { type FileOperations, nodeFiles } from '../../../../edge-gateway/log/files.ts';
import {
  decodeFrame,
  encodeFrame,
  type Frame,
  frameBytesAtMost,
  type Message,
} from '../../../../edge-gateway/log/frame.ts';
import { keepProperties } from '../../../../edge-gateway/log/frame-properties.ts';
import { compileMapping } from '../../../../edge-gateway/mapping/compile.ts';
import {
  type Certificate,
  nodeHash,
  sealCertificate,
} from '../../../../edge-gateway/mapping/sparkplug/certificate.ts';
import { newCertificateReader } from '../../../../edge-gateway/mapping/sparkplug/certificate-reader.ts';
import { openCertificateStore } from '../../../../edge-gateway/mapping/sparkplug/certificate-store.ts';
import { openObserver } from '../../../../edge-gateway/mapping/sparkplug/observer.ts';
import { tryMapping } from '../../../../edge-gateway/mapping/try-mapping.ts';
import { frame } from '../../frames.ts';
import { AT, bdSeq, encoded } from './encoded.ts';

const logger = pino({ level: 'silent' });

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-sparkplug-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return join(folder, 'births');
}

let sequence = 0;
const message = (topic: string, payload: Uint8Array, monotonicMs = 0): Frame =>
  frame(++sequence, topic, payload, { monotonicMs });
const nbirth = (alias = 1) =>
  message('spBv1.0/g/NBIRTH/n', encoded(0, [bdSeq(1), { name: 'a', alias, type: 'Int32', value: 1 }]));
const ndata = (seq: number, alias = 1) =>
  message('spBv1.0/g/NDATA/n', encoded(seq, [{ alias, type: 'Int32', value: -2 }]));

async function opened(folder: string, recent: readonly Frame[] = [], files: FileOperations = nodeFiles) {
  const observer = await openObserver({ folder, recent, logger, files });
  const published: string[] = [];
  observer.connected((topic: string) => published.push(topic));
  const stored: Message[] = [];
  const observe = (next: Message) =>
    new Promise<Message>(resolve =>
      observer.observe(next, each => {
        stored.push(each);
        resolve(each);
      }),
    );
  return { observer, observe, stored, published };
}

const mappingIn = (birthsFolder: string) =>
  compileMapping({ profiles: [{ profile: 'sparkplug' }], mappings: [], birthsFolder });

test('a birth is on disk before its message goes on, messages keep their order, and any mapping reads them', async t => {
  const folder = folderOf(t);
  const { observer, observe, stored } = await opened(folder);
  t.after(() => observer.close());
  const all = [nbirth(), ndata(1), message('devices/x/telemetry', Buffer.from('{}')), ndata(2)];
  const last = all.map(observe).at(-1)!;
  await last;
  assert.deepEqual(
    stored.filter(({ topic }) => topic.startsWith('spBv1.0')).map(each => (each as Frame).sequence),
    [all[0], all[1], all[3]].map(each => each!.sequence),
  );
  const [birth, data] = stored.filter(({ topic }) => topic.startsWith('spBv1.0'));
  assert.equal(data!.properties?.reference, birth!.properties?.reference);
  assert.ok(readdirSync(folder).some(name => name.endsWith(`-${birth!.properties!.reference}.json`)));
  assert.deepEqual(tryMapping(mappingIn(folder), data!), {
    readings: [{ device: 'g:n', kind: 'telemetry', time: new Date(AT).toISOString(), metrics: { a: -2 } }],
    setAside: null,
  });
  // The same with the properties as the log gives them back, in another order, twice.
  const mapping = mappingIn(folder);
  assert.deepEqual(mapping(data!), mapping(data!));
});

test('after a restart data goes on with the birth of before; the newest frames make up for a lost state', async t => {
  for (const state of ['kept', 'lost', 'damaged']) {
    const folder = folderOf(t);
    const first = await opened(folder);
    const frames = [await first.observe(nbirth()), await first.observe(ndata(1))] as Frame[];
    await first.observer.close();
    if (state === 'lost') rmSync(join(folder, 'state.json'));
    if (state === 'damaged') writeFileSync(join(folder, 'state.json'), '{"nodes":[{');
    const second = await opened(folder, state === 'kept' ? [] : frames);
    const data = await second.observe(ndata(2));
    await second.observer.close();
    assert.equal(data.properties?.reference, frames[0]!.properties?.reference, state);
    assert.deepEqual(second.published, [], state);
  }
});

test('an unknown alias: one rebirth command, and the message is set aside with its reason', async t => {
  const folder = folderOf(t);
  const { observer, observe, published } = await opened(folder);
  t.after(() => observer.close());
  await observe(nbirth());
  const unknown = await observe(ndata(1, 99));
  await observe(ndata(2, 99));
  assert.deepEqual(published, ['spBv1.0/g/NCMD/n']);
  assert.equal(observer.stats.rebirthsAsked, 1);
  assert.match(tryMapping(mappingIn(folder), unknown).setAside!, /alias 99 is not in the last birth/);
});

test('a disk that refuses holds the messages back, and takes them in order when it is well again (A)', async t => {
  const folder = folderOf(t);
  let refused = 0;
  const files: FileOperations = {
    ...nodeFiles,
    create: async path => {
      if (refused < 1) {
        refused++;
        throw Object.assign(new Error('no space left'), { code: 'ENOSPC' });
      }
      return nodeFiles.create(path);
    },
  };
  const { observer, observe, stored } = await opened(folder, [], files);
  t.after(() => observer.close());
  const [birth, data] = [nbirth(), ndata(1)];
  const both = [observe(birth), observe(data)];
  assert.deepEqual(stored, [], 'neither is taken yet');
  await Promise.all(both);
  assert.deepEqual(
    stored.map(each => (each as Frame).sequence),
    [birth.sequence, data.sequence],
  );
});

test('a message that waits when the gateway stops is left to the broker', async t => {
  const folder = folderOf(t);
  const files: FileOperations = {
    ...nodeFiles,
    create: () => Promise.reject(Object.assign(new Error('read-only'), { code: 'EROFS' })),
  };
  const { observer, stored } = await opened(folder, [], files);
  observer.observe(nbirth(), each => stored.push(each));
  await observer.close();
  assert.deepEqual(stored, []);
});

test('a damaged birth is never used: its data is set aside, and the next birth writes it anew (I)', async t => {
  const folder = folderOf(t);
  const first = await opened(folder);
  await first.observe(nbirth());
  const data = await first.observe(ndata(1));
  await first.observer.close();
  const file = join(folder, readdirSync(folder).find(name => name.includes(data.properties!.reference!))!);
  const good = readFileSync(file, 'utf8');
  writeFileSync(file, good.replace('"a"', '"b"'));
  assert.match(tryMapping(mappingIn(folder), data).setAside!, /kept no more, or is damaged/);
  const second = await opened(folder, [data as Frame]);
  t.after(() => second.observer.close());
  await second.observe(ndata(2));
  assert.deepEqual(second.published, ['spBv1.0/g/NCMD/n']);
  await second.observe(nbirth());
  assert.equal(readFileSync(file, 'utf8'), good);
});

test('a death tells all devices of the node offline, but for one whose name was never usable', async t => {
  const folder = folderOf(t);
  const { observer, observe } = await opened(folder);
  t.after(() => observer.close());
  await observe(nbirth());
  const tooLong = 'ü'.repeat(60);
  for (const [n, name] of ['d 1', tooLong].entries()) {
    await observe(message(`spBv1.0/g/DBIRTH/n/${name}`, encoded(n + 1, [])));
  }
  const late = await observe(message('spBv1.0/g/NDEATH/n', encoded(null, [bdSeq(0)])));
  const death = await observe(message('spBv1.0/g/NDEATH/n', encoded(null, [bdSeq(1)])));
  assert.deepEqual(tryMapping(mappingIn(folder), late), { readings: [], setAside: null });
  const { readings, setAside } = tryMapping(mappingIn(folder), death);
  assert.equal(setAside, null);
  assert.deepEqual(
    readings.map(({ device, metrics }) => [device, metrics.status]),
    [
      ['g:n', 'offline'],
      ['g:n:d:_1', 'offline'],
    ],
  );
});

test('whatever comes goes on (H)', async t => {
  const { observer, observe } = await opened(folderOf(t));
  t.after(() => observer.close());
  const strange: [string, Buffer][] = [
    ['spBv1.0', Buffer.of()],
    ['spBv1.0/', Buffer.of(1)],
    ['spBv1.0/g/NBIRTH/n', Buffer.of(0xff, 0xff)],
    ['spBv1.0/g/NBIRTH/n', Buffer.of()],
    ['spBv1.0/g/NDEATH/n', Buffer.of(0xff)],
    ['spBv1.0/g/DDATA/n', encoded(3, [])],
    ['spBv1.0/g/NCMD/n', encoded(3, [])],
    ['spBv1.0/STATE/host', Buffer.from('ONLINE')],
    [`spBv1.0/g/NBIRTH/${'n'.repeat(60_000)}`, encoded(0, [{ name: 'a', type: 'Int32', value: 1 }])],
  ];
  for (const [topic, payload] of strange) await observe(message(topic, payload));
});

test('the folder is bounded: the node with the most gives, what it needs least first, also after a restart (F, S)', async t => {
  const folder = folderOf(t);
  const inUse = new Set<string>();
  const options = { folder, files: nodeFiles, inUse: () => inUse, logger, filesMax: 5 };
  const open = () => openCertificateStore({ ...options, reader: newCertificateReader(folder) });
  const birth = (node: string, n: number) => {
    const certificate: Certificate = { of: node, metrics: [[n, `metric${n}`, 3]] };
    return sealCertificate(certificate);
  };
  const names = (node: string) => readdirSync(folder).filter(name => name.startsWith(nodeHash(node)));
  const idOf = (name: string) => name.slice(17, 49);
  let store = await open();
  await store.put('g/quiet', birth('g/quiet', 1));
  inUse.add(birth('g/loud', 0).id);
  for (let n = 0; n < 4; n++) await store.put('g/loud', birth('g/loud', n));
  await store.close();
  store = await open();
  for (let n = 4; n < 20; n++) await store.put('g/loud', birth('g/loud', n));
  assert.equal(names('g/quiet').length, 1, 'nobody pushes out what is of another node');
  const left = names('g/loud').map(idOf);
  assert.equal(left.length, 4);
  assert.ok(left.includes(birth('g/loud', 0).id), 'what is in use goes last');
  assert.ok(left.includes(birth('g/loud', 19).id));
  assert.equal(store.put('g/quiet', birth('g/quiet', 1)), null, 'what is there is not written again');
  await store.close();
});

test('no device can give a reference, and one has room beside all that a device can send', () => {
  const forged = { reference: 'x', userProperties: { reference: 'y'.repeat(4000) } };
  const kept = keepProperties(forged);
  assert.deepEqual(kept, { userProperties: [['reference', 'y'.repeat(4000)]] });
  const userProperties = { a: 'ü'.repeat(2043) };
  const full = keepProperties({ contentType: 'c'.repeat(300), userProperties, messageExpiryInterval: 5 })!;
  assert.equal(full.userPropertiesLeftOut, undefined);
  const sent = message('spBv1.0/g/NDATA/n', Buffer.of(1));
  const stored: Frame = { ...sent, properties: { ...full, reference: 'f'.repeat(32) } };
  const buffer = Buffer.alloc(frameBytesAtMost(stored));
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  encodeFrame(buffer, view, 0, stored, stored.sequence, 1);
  assert.deepEqual(decodeFrame(buffer, view, 0).properties, stored.properties);
});
