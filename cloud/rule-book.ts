/**
 * The alert rules as they stand in Postgres, read again every few seconds and arranged for the actors when one has
 * changed. A rule that makes no sense is set aside with its reason (H).
 */
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { Rule } from './actors/rule.ts';
import { indexRules, type RuleIndex } from './actors/rule-index.ts';
import { problemText, RULES_MAX, RuleBody, RuleId, ruleOf, type StoredRule } from './rule-model.ts';

export interface RuleBook {
  rules(): RuleIndex;
  refresh(): Promise<void>;
}

/** The columns of the table by the names that people write. */
type RuleRow = { readonly id: string } & Readonly<Record<string, unknown>>;

const COLUMNS = {
  kind: 'kind',
  metric: 'metric',
  comparison: 'comparison',
  threshold: 'threshold',
  low: 'low',
  high: 'high',
  direction: 'direction',
  perMs: 'per_ms',
  deviations: 'deviations',
  window: 'readings',
  warmup: 'warmup',
  floor: 'floor',
  forMs: 'for_ms',
  hysteresis: 'hysteresis',
  severity: 'severity',
  site: 'site',
  device: 'device',
  deviceType: 'device_type',
  tag: 'tag',
  enabled: 'enabled',
} as const;

const SELECT = `select id, ${Object.entries(COLUMNS)
  .map(([name, column]) => `${column === 'for_ms' ? 'for_ms::float8' : column} as "${name}"`)
  .join(', ')} from holdfast.rule`;

/** Of all rules, in the order of their ids; those beyond the bound are not looked at (F). */
export async function readRules(pool: Pool): Promise<RuleRow[]> {
  const { rows } = await pool.query<RuleRow>(`${SELECT} order by id limit $1`, [RULES_MAX]);
  return rows;
}

export async function readRule(pool: Pool, id: string): Promise<RuleRow | null> {
  const { rows } = await pool.query<RuleRow>(`${SELECT} where id = $1`, [id]);
  return rows[0] ?? null;
}

/** @returns the rule, or why it makes no sense */
export function ruleOfRow({ id, ...columns }: RuleRow): StoredRule | string {
  const named = RuleId.safeParse(id);
  if (!named.success) return `id: ${problemText(named.error)}`;
  const body = Object.fromEntries(Object.entries(columns).filter(([, value]) => value !== null));
  const parsed = RuleBody.safeParse(body);
  return parsed.success ? { ...parsed.data, id } : problemText(parsed.error);
}

/** @returns false when there is no room for another one */
export async function writeRule(pool: Pool, { id, ...body }: StoredRule): Promise<boolean> {
  const given = body as Readonly<Record<string, unknown>>;
  const names = Object.keys(COLUMNS) as (keyof typeof COLUMNS)[];
  const columns = names.map(name => COLUMNS[name]);
  const { rowCount } = await pool.query(
    `insert into holdfast.rule (id, ${columns.join(', ')})
     select $1, ${names.map((_, index) => `$${index + 2}`).join(', ')}
      where exists (select from holdfast.rule where id = $1) or (select count(*) from holdfast.rule) < ${RULES_MAX}
     on conflict (id) do update set changed_at = now(), ${columns.map(name => `${name} = excluded.${name}`).join(', ')}`,
    [id, ...names.map(name => given[name] ?? null)],
  );
  return rowCount === 1;
}

/** @returns whether there was one */
export async function deleteRule(pool: Pool, id: string): Promise<boolean> {
  const { rowCount } = await pool.query('delete from holdfast.rule where id = $1', [id]);
  return rowCount === 1;
}

export function openRuleBook(pool: Pool, logger: Logger): RuleBook {
  let index = indexRules([], 0);
  let read = '';
  return {
    rules: () => index,
    async refresh() {
      const rows = await readRules(pool);
      const now = JSON.stringify(rows);
      if (now === read) return;
      read = now;
      const rules: Rule[] = [];
      for (const row of rows) {
        const rule = ruleOfRow(row);
        if (typeof rule === 'string') logger.warn({ rule: row.id, reason: rule }, 'rule set aside');
        else if (rule.enabled) rules.push(ruleOf(rule));
      }
      index = indexRules(rules, index.version + 1);
    },
  };
}
