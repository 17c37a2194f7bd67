/** The numbers that devices of a site have in history. */
import type { Pool } from 'pg';

/** @returns by name; a device that history does not know is not there */
export async function deviceNumbers(
  pool: Pool,
  site: string,
  names: readonly string[],
): Promise<Map<string, number>> {
  const { rows } = await pool.query<{ id: number; name: string }>({
    name: 'holdfast device numbers',
    text: 'select id, name from holdfast.device where site = $1 and name = any ($2)',
    values: [site, names],
  });
  return new Map(rows.map(({ id, name }) => [name, id]));
}

export async function isKnownSite(pool: Pool, site: string): Promise<boolean> {
  const { rowCount } = await pool.query('select from holdfast.device where site = $1 limit 1', [site]);
  return rowCount === 1;
}
