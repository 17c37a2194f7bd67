/** What is noted of each Sparkplug message as it comes in: its birth, gaps, and when a node is asked to be born again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readerOfTexts } from '../../../../edge-gateway/mapping/sparkplug/certificate-reader.ts';
import { decodeSparkplug } from '../../../../edge-gateway/mapping/sparkplug/payload.ts';
import { resolveMetric } from '../../../../edge-gateway/mapping/sparkplug/resolve.ts';
import {
  EARLIER_SESSION,
  type Finding,
  limits,
  type NodeRecord,
  newSession,
  REBIRTH_AGAIN_MS,
} from '../../../../edge-gateway/mapping/sparkplug/session.ts';
import { parseTopic } from '../../../../edge-gateway/mapping/sparkplug/topic.ts';
import { bdSeq, encoded } from './encoded.ts';

/** A site with its certificates, which outlive the session. */
function site() {
  const texts = new Map<string, string>();
  const reader = readerOfTexts(texts);
  let session = newSession(reader);
  let nowMs = 0;
  const send = (topic: string, payload: Buffer, duplicate = false): Finding => {
    const found = session.observe(
      parseTopic(topic.split('/'))!,
      payload.length === 0 ? null : decodeSparkplug(payload),
      nowMs,
      duplicate,
    );
    if (found.certificate) texts.set(found.certificate.id, found.certificate.text);
    return found;
  };
  return {
    send,
    reader,
    wait: (ms: number) => {
      nowMs += ms;
    },
    interrupted: () => session.interrupted(),
    restart(records: readonly NodeRecord[] = session.records()) {
      session = newSession(reader, JSON.parse(JSON.stringify(records)));
      session.interrupted();
    },
    records: () => session.records(),
    nbirth: (seq = 0, session = 1, alias = 1) =>
      send(
        'spBv1.0/g/NBIRTH/n',
        encoded(seq, [bdSeq(session), { name: 'a', alias, type: 'Int32', value: 1 }]),
      ),
    dbirth: (seq: number, device = 'd', alias = 10) =>
      send(`spBv1.0/g/DBIRTH/n/${device}`, encoded(seq, [{ name: 'x', alias, type: 'Float', value: 1 }])),
    ndata: (seq: number, alias = 1) =>
      send('spBv1.0/g/NDATA/n', encoded(seq, [{ alias, type: 'Int32', value: 2 }])),
    ddata: (seq: number, device = 'd', alias = 10) =>
      send(`spBv1.0/g/DDATA/n/${device}`, encoded(seq, [{ alias, type: 'Float', value: 2 }])),
    ndeath: (session = 1) => send('spBv1.0/g/NDEATH/n', encoded(null, [bdSeq(session)])),
    ddeath: (seq: number, device = 'd') => send(`spBv1.0/g/DDEATH/n/${device}`, encoded(seq, [])),
  };
}

test('data refers to the birth of its node or device; the same metrics are the same birth', () => {
  const { nbirth, dbirth, ndata, ddata } = site();
  const node = nbirth();
  const device = dbirth(1);
  assert.deepEqual(ndata(2), { reference: node.reference });
  assert.deepEqual(ddata(3), { reference: device.reference });
  assert.notEqual(node.reference, device.reference);
  assert.equal(nbirth(0, 2).reference, node.reference);
  assert.notEqual(nbirth(0, 3, 7).reference, node.reference);
});

test('the sequence wraps at 256; what is missing is noticed, and asked for once', () => {
  const { nbirth, ndata, wait } = site();
  nbirth();
  for (let seq = 1; seq < 256; seq++) assert.equal(ndata(seq).gap, undefined);
  assert.equal(ndata(0).gap, undefined);
  const missing = ndata(2);
  assert.equal(missing.gap, true);
  assert.match(missing.rebirth!, /messages are missing/);
  assert.ok(missing.reference, 'the connection held: no birth was missed');
  assert.deepEqual(
    { ...ndata(9), reference: null },
    { reference: null, gap: true },
    'not asked again so soon',
  );
  wait(REBIRTH_AGAIN_MS);
  assert.match(ndata(20).rebirth!, /missing/);
});

test('a message that the broker repeats is no gap', () => {
  const { nbirth, ndata, send } = site();
  nbirth();
  ndata(1);
  const again = send('spBv1.0/g/NDATA/n', encoded(1, [{ alias: 1, type: 'Int32', value: 2 }]), true);
  assert.equal(again.gap, undefined);
  assert.equal(ndata(2).gap, undefined);
});

test('data without a birth, of a dead node, or with an unknown alias asks for a rebirth, once a minute', () => {
  const { nbirth, dbirth, ndata, ddata, ndeath, ddeath, wait } = site();
  assert.match(ndata(4).rebirth!, /without a birth/);
  assert.deepEqual(ndata(5), {});
  nbirth();
  assert.deepEqual(ddata(1), {}, 'the device has none; still in the same minute');
  wait(REBIRTH_AGAIN_MS);
  assert.match(ddata(2).rebirth!, /without a birth/);
  dbirth(3);
  wait(REBIRTH_AGAIN_MS);
  const unknown = ddata(4, 'd', 99);
  assert.match(unknown.rebirth!, /alias 99 is not in the last birth/);
  ddeath(5);
  wait(REBIRTH_AGAIN_MS);
  assert.match(ddata(6).rebirth!, /without a birth/);
  ndeath();
  wait(REBIRTH_AGAIN_MS);
  const dead = ndata(7);
  assert.match(dead.rebirth!, /without a birth/);
  assert.equal(dead.reference, undefined);
});

test('a birth of a device whose node is not known is taken, and the node asked for', () => {
  const { dbirth, ddata } = site();
  const born = dbirth(8);
  assert.match(born.rebirth!, /without its node/);
  assert.equal(ddata(9).reference, born.reference);
});

test('a new birth of the node ends those of its devices', () => {
  const { nbirth, dbirth, ddata } = site();
  nbirth();
  dbirth(1);
  nbirth();
  assert.equal(ddata(1).reference, undefined);
});

test('a death takes the devices that are there; one of an earlier session says nothing', () => {
  const { nbirth, dbirth, ddeath, ndeath, ddata, reader } = site();
  nbirth(0, 7);
  dbirth(1, 'b');
  dbirth(2, 'a');
  dbirth(3, 'gone');
  ddeath(4, 'gone');
  assert.deepEqual(ndeath(6), { reference: EARLIER_SESSION });
  assert.ok(ddata(5, 'a').reference, 'it lives on');
  const death = ndeath(7);
  assert.deepEqual(reader.devices('g/n', death.reference!), ['a', 'b']);
  assert.equal(reader.devices('g/other', death.reference!), null, 'nobody else finds it (S)');
  assert.deepEqual(ndeath(7), {}, 'nobody is left');
});

test('births are kept over restarts while the sequence goes on, and doubted when it does not', () => {
  const { nbirth, ndata, restart, interrupted } = site();
  const { reference } = nbirth();
  ndata(1);
  restart();
  assert.deepEqual(ndata(2), { reference });
  interrupted();
  assert.deepEqual(ndata(3), { reference });
  restart();
  const doubted = ndata(5);
  assert.equal(doubted.reference, undefined, 'a birth may have been missed');
  assert.equal(doubted.gap, true);
  assert.match(doubted.rebirth!, /missing|without/);
  assert.equal(ndata(6).reference, undefined);
  restart();
  assert.equal(ndata(7).reference, undefined, 'and stays doubted');
  assert.equal(nbirth().reference, reference);
  assert.deepEqual(ndata(1), { reference });
});

test('what the log still has makes up for a state that was not kept', () => {
  const a = site();
  const texts = [a.nbirth(), a.dbirth(1), a.ndata(2), a.ddata(3)].map(({ reference }) => reference);
  const session = newSession(a.reader);
  const topics = ['NBIRTH/n', 'DBIRTH/n/d', 'NDATA/n', 'DDATA/n/d'];
  const payload = (seq: number) => decodeSparkplug(encoded(seq, seq === 0 ? [bdSeq(1)] : []));
  for (const [seq, rest] of topics.entries()) {
    session.recall(parseTopic(`spBv1.0/g/${rest}`.split('/'))!, payload(seq), texts[seq]);
  }
  assert.deepEqual(session.records(), JSON.parse(JSON.stringify(a.records())));
});

test('more devices of a node than are told dead in one message are not followed (F)', () => {
  const { nbirth, dbirth, ndeath, reader } = site();
  nbirth();
  for (let n = 0; n < limits.devicesPerNodeMax + 5; n++) dbirth((n + 1) % 256, `d${n}`);
  const death = ndeath();
  assert.equal(reader.devices('g/n', death.reference!)!.length, limits.devicesPerNodeMax);
});

/**
 * A node that gives its aliases anew at every birth, and a gateway that is away now and then: whatever it resolves is
 * what the node meant. Left out is the one case that no gateway can see: a node that was born again meanwhile and whose
 * sequence is just where it would have been.
 */
test('no name is ever guessed', () => {
  const step = fc.oneof(
    { weight: 8, arbitrary: fc.constant('data' as const) },
    { weight: 2, arbitrary: fc.constantFrom('birth' as const, 'death' as const) },
    { weight: 2, arbitrary: fc.constantFrom('away' as const, 'back' as const, 'restart' as const) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), steps => {
      const s = site();
      let names: string[] = [];
      let seq = 0;
      let births = 0;
      let alive = false;
      let away = false;
      let lastSeen = -1;
      let missedBirth = false;
      for (const kind of steps) {
        if (kind === 'away') away = true;
        else if (kind === 'back' || kind === 'restart') {
          away = false;
          if (kind === 'restart') s.restart();
          else s.interrupted();
        } else if (kind === 'birth') {
          births++;
          names = [`one${births}`, `two${births}`];
          seq = 0;
          alive = true;
          if (away) missedBirth = true;
          else {
            const metrics = names.map((name, alias) => ({ name, alias, type: 'Int32', value: 0 }));
            s.send('spBv1.0/g/NBIRTH/n', encoded(0, [bdSeq(births), ...metrics]));
            lastSeen = 0;
            missedBirth = false;
          }
        } else if (kind === 'death') {
          if (alive && !away) s.ndeath(births);
          alive = false;
        } else if (alive) {
          seq = (seq + 1) % 256;
          if (away) continue;
          fc.pre(!(missedBirth && seq === lastSeen + 1));
          const payload = encoded(seq, [
            { alias: 0, type: 'Int32', value: 1 },
            { alias: 1, type: 'Int32', value: 1 },
          ]);
          const { reference } = s.send('spBv1.0/g/NDATA/n', payload);
          lastSeen = seq;
          missedBirth = false;
          if (reference === undefined) continue;
          const birth = s.reader.birth('g/n', reference);
          const resolved = decodeSparkplug(payload).metrics.map(metric => resolveMetric(metric, birth).name);
          assert.deepEqual(resolved, names);
        }
      }
    }),
    { numRuns: 500 },
  );
});
