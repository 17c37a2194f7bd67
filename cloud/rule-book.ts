/** The alert rules as they stand in Postgres, read again every few seconds. A rule that makes no sense is set aside (H). */
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { ThresholdRule } from './actors/rule.ts';

const RuleRow = z.object({
  id: z.string(),
  metric: z.string(),
  comparison: z.enum(['above', 'below']),
  threshold: z.number(),
  hysteresis: z.number().nonnegative(),
  severity: z.enum(['info', 'warning', 'critical']),
  site: z.string().nullable(),
  device: z.string().nullable(),
}) satisfies z.ZodType<ThresholdRule>;

const RULES_MAX = 10_000;

export interface RuleBook {
  rules(): readonly ThresholdRule[];
  refresh(): Promise<void>;
}

export function openRuleBook(pool: Pool, logger: Logger): RuleBook {
  let rules: readonly ThresholdRule[] = [];
  return {
    rules: () => rules,
    async refresh() {
      const { rows } = await pool.query(
        `select id, metric, comparison, threshold, hysteresis, severity, site, device
           from holdfast.rule where enabled order by id limit $1`,
        [RULES_MAX],
      );
      rules = rows.flatMap(row => {
        const parsed = RuleRow.safeParse(row);
        if (!parsed.success) logger.warn({ rule: row.id, reason: parsed.error.message }, 'rule set aside');
        return parsed.success ? [parsed.data] : [];
      });
    },
  };
}
