import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import type { Pool } from 'pg';
import { openDictionary } from '../../cloud/history/dictionary.ts';
import { freshDatabase, startTestPostgres } from './servers.ts';

let pool: Pool;
before(async () => {
  pool = await freshDatabase(await startTestPostgres());
});

const nameOf = async (id: number) => {
  const { rows } = await pool.query<{ name: string }>('select name from holdfast.device where id = $1', [id]);
  return rows[0]?.name;
};

test('a database that came back as it was earlier: names and ledger are read again (B, R)', async () => {
  const dictionary = openDictionary(pool);
  const [a] = await dictionary.devices('demo', ['a']);
  await dictionary.log('demo', 'gw', '0'.repeat(32));
  await pool.query("update holdfast.gateway_log set settled = '{[1,10)}'");
  assert.equal((await dictionary.log('demo', 'gw', '0'.repeat(32))).settled.toString(), '{}', 'remembered');

  // Restored to before both were known; the number of "a" goes to somebody else.
  await pool.query('truncate holdfast.device, holdfast.gateway_log restart identity cascade');
  const [b] = await openDictionary(pool).devices('demo', ['b']);
  assert.equal(b, a);

  dictionary.forgetAll();
  const [again] = await dictionary.devices('demo', ['a']);
  assert.equal(await nameOf(again!), 'a');
  assert.notEqual(again, a);
  assert.equal((await dictionary.log('demo', 'gw', '0'.repeat(32))).settled.toString(), '{}');
});
