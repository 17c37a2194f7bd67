/**
 * The file of an export, from the gateway's disk to what the cloud believes of it: whole or not at all (I), of the
 * gateway whose key signed it and of no other (S).
 */
import assert from 'node:assert/strict';
import { createHash, randomInt } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { before, type TestContext, test } from 'node:test';
import { missingParts } from '../../cloud/import/missing-parts.ts';
import { openExport } from '../../cloud/import/open-export.ts';
import { parseTrustList } from '../../cloud/import/trust-list.ts';
import { encodePreamble, readExportFile } from '../../protocol/export/export-file.ts';
import { SIGNATURE_BYTES, signDigest, signingKeyText } from '../../protocol/export/signing.ts';
import { gatewayId, siteId } from '../../protocol/ids.ts';
import {
  exportFrom,
  GATEWAY,
  type Keys,
  makeFolder,
  newIdentity,
  newKeys,
  newSigningKey,
  numbersIn,
  openBuffer,
  opened,
  range,
  SITE,
  store,
  temporaryFolder,
  trustOf,
} from './support.ts';

let keys: Keys;
/** Of a buffer with readings 1 to 3000. */
let good: Buffer;

before(async () => {
  keys = await newKeys();
  const folder = await makeFolder();
  const buffer = await openBuffer(join(folder, 'log'));
  await store(buffer, 1, 3001);
  const outcome = await exportFrom(join(folder, 'log'), folder, keys);
  await buffer.close();
  assert.equal(outcome.files.length, 1);
  good = await fs.readFile(outcome.files[0]!.file);
  await fs.rm(folder, { recursive: true, force: true });
});

async function refusalOf(t: TestContext, bytes: Buffer, with_: Partial<Keys> = {}) {
  const file = join(await temporaryFolder(t), 'x.holdfast');
  await fs.writeFile(file, bytes);
  const outcome = await openExport(file, { ...keys, ...with_ });
  assert.ok('refused' in outcome, 'it was taken');
  return outcome.refused;
}

/** The same content under another header, signed anew: what somebody with a key of his own can make. */
function signedAnew(header: Partial<Parameters<typeof encodePreamble>[0]>, signing = keys.signing): Buffer {
  const parts = readExportFile(good);
  assert.ok(!('refused' in parts));
  const key = signingKeyText(signing);
  const preamble = encodePreamble({ ...parts.header, key, ...header });
  const signed = Buffer.concat([preamble, parts.sealed]);
  return Buffer.concat([signed, signDigest(createHash('sha512').update(signed).digest(), signing)]);
}

test('what a gateway exports is opened by the cloud: the batches, and whose they are (A, S)', async t => {
  const folder = await temporaryFolder(t);
  const file = join(folder, 'good.holdfast');
  await fs.writeFile(file, good);
  const { site, gateway, last } = await opened(file, keys);
  assert.deepEqual({ site, gateway, last }, { site: SITE, gateway: GATEWAY, last: true });
  assert.deepEqual(await numbersIn([file], keys), range(1, 3001));
});

test('a file that was cut short anywhere is refused (I)', async t => {
  const lengths = [0, 1, 17, 18, 100, good.length - 1, good.length - SIGNATURE_BYTES, good.length - 65];
  for (const length of [...lengths, ...range(0, 10).map(() => randomInt(good.length))]) {
    assert.notEqual(await refusalOf(t, good.subarray(0, length)), '', `${length} bytes`);
  }
});

test('a file with a flipped bit anywhere is refused (I)', async t => {
  for (const at of [20, 200, 400, good.length - 1, ...range(0, 20).map(() => randomInt(good.length))]) {
    const damaged = Buffer.from(good);
    damaged[at]! ^= 1 << randomInt(8);
    assert.notEqual(await refusalOf(t, damaged), '', `byte ${at}`);
  }
});

test('bytes behind the end, and a file that is something else, are refused (I)', async t => {
  assert.match(await refusalOf(t, Buffer.concat([good, Buffer.alloc(1)])), /signature/);
  assert.match(await refusalOf(t, Buffer.from('%PDF-1.7')), /no export/);
  assert.match(await refusalOf(t, Buffer.from('HOLDFAST-EXPORT 2\n{}\n')), /newer version/);
});

test('another recipient cannot open it, and is told whom it is for', async t => {
  const identity = await newIdentity();
  const refusal = await refusalOf(t, good, { identity });
  assert.ok(refusal.includes(keys.identity.recipient) && refusal.includes(identity.recipient));
});

test('a header that names another recipient opens nothing either', async t => {
  const identity = await newIdentity();
  const file = signedAnew({ recipient: identity.recipient });
  assert.match(await refusalOf(t, file, { identity }), /cannot be decrypted/);
});

test('a key that is not on the trust list is refused, with the line that would let it in (S)', async t => {
  const refusal = await refusalOf(t, good, { trust: new Map() });
  assert.ok(refusal.includes(`add: ${SITE}/${GATEWAY} ${signingKeyText(keys.signing)}`));
});

test('a gateway cannot write as another site or gateway (S)', async t => {
  for (const forged of [{ site: siteId('plant') }, { gateway: gatewayId('gw-2') }]) {
    assert.match(await refusalOf(t, signedAnew(forged)), /its key belongs to demo\/gw-1/);
  }
});

test('a gateway that signs with its own key in the name of another one is refused (S)', async t => {
  const mallory = newSigningKey();
  const trust = trustOf([`${SITE}/${GATEWAY}`, keys.signing], ['plant/gw-9', mallory]);
  assert.match(await refusalOf(t, signedAnew({}, mallory), { trust }), /its key belongs to plant\/gw-9/);
  const forged = signedAnew({ key: signingKeyText(keys.signing) }, mallory);
  assert.match(await refusalOf(t, forged, { trust }), /signature/);
});

test('a gateway cannot pass off a file it cannot read as its own, to find the content at its own site (S)', async t => {
  const mallory = newSigningKey();
  const trust = trustOf([`${SITE}/${GATEWAY}`, keys.signing], ['plant/gw-9', mallory]);
  const stolen = signedAnew({ site: siteId('plant'), gateway: gatewayId('gw-9') }, mallory);
  assert.match(await refusalOf(t, stolen, { trust }), /written for another file/);
});

test('a trust list says which of its lines are wrong', () => {
  const key = signingKeyText(newSigningKey());
  const right = parseTrustList(`# enrolled in May\ndemo/gw-1 ${key}\n\ndemo/gw-2 ${key} # moved\r\n`);
  assert.ok(right.ok);
  assert.deepEqual([...right.trust.get(key)!], ['demo/gw-1', 'demo/gw-2']);
  const wrong = parseTrustList(
    `demo ${key}\ndemo/gw-1 ed25519:short\ndemo/gw-1 ${key}\ndemo/gw-1 ${key} more`,
  );
  assert.ok(!wrong.ok);
  assert.deepEqual(
    wrong.problems.map(problem => problem.split(':')[0]),
    ['line 1', 'line 2', 'line 4'],
  );
});

test('files of an export that were not among those imported are named', () => {
  const part = (number: number, last = false) => ({ export: 'a1', part: number, last });
  assert.deepEqual(missingParts([part(1), part(2), part(3, true)]), []);
  assert.match(missingParts([part(1), part(4, true)]).join(), /part 2, 3/);
  assert.match(missingParts([part(1), part(2)]).join(), /after part 2/);
});
