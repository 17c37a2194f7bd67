/**
 * A rule as people write it (the API, `holdfast rules put`) and as the table holds it: which fields each kind has, what
 * makes sense, and why something does not.
 */
import { z } from 'zod';
import { isDeviceId, isSiteId } from '../protocol/ids.ts';
import { limits } from '../protocol/limits.ts';
import type { Rule } from './actors/rule.ts';

export const RULES_MAX = 10_000;
const DURATION_MAX_MS = 30 * 86_400_000;
const WINDOW_MAX = 100_000;

/** Part of incident ids: a link's are its own. */
export const RuleId = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/, 'must be letters, digits, ".", "_" and "-", at most 100')
  .refine(id => id !== 'link', '"link" is the name of what tells of dead links');

const text = (max: number) =>
  z
    .string()
    .min(1)
    .max(max)
    .refine(given => !given.includes('\0') && given.isWellFormed(), 'is not plain text');
const number = z.number().refine(value => Number.isFinite(value), 'must be finite');

const common = {
  severity: z.enum(['info', 'warning', 'critical']).default('warning'),
  enabled: z.boolean().default(true),
  site: z.string().refine(isSiteId, 'is no site name').nullable().default(null),
  device: z.string().refine(isDeviceId, 'is no device name').nullable().default(null),
  deviceType: text(200).nullable().default(null),
  tag: text(200).nullable().default(null),
};
const metric = text(limits.metricNameBytesMax);
const ofMetric = {
  ...common,
  metric,
  forMs: z.number().int().min(0).max(DURATION_MAX_MS).default(0),
  hysteresis: number.nonnegative().default(0),
};

/** A body of `PUT /rules/:id`. Unknown fields are refused: a misspelt one would be a rule that does something else. */
export const RuleBody = z
  .discriminatedUnion('kind', [
    z.strictObject({
      ...ofMetric,
      kind: z.literal('threshold'),
      comparison: z.enum(['above', 'below']),
      threshold: number,
    }),
    z.strictObject({ ...ofMetric, kind: z.literal('range'), low: number, high: number }),
    z.strictObject({
      ...ofMetric,
      kind: z.literal('rate'),
      direction: z.enum(['rising', 'falling', 'either']).default('either'),
      threshold: number.nonnegative(),
      perMs: z.number().int().min(1000).max(86_400_000).default(60_000),
    }),
    z.strictObject({
      ...common,
      kind: z.literal('absence'),
      metric: metric.nullable().default(null),
      forMs: z.number().int().min(1000).max(DURATION_MAX_MS),
    }),
    z.strictObject({
      ...common,
      metric,
      forMs: ofMetric.forMs,
      kind: z.literal('anomaly'),
      deviations: z.number().min(1).max(1000).default(5),
      window: z.number().int().min(20).max(WINDOW_MAX).default(1000),
      warmup: z.number().int().min(10).max(WINDOW_MAX).default(200),
      floor: number.nonnegative().default(0),
    }),
  ])
  .superRefine((rule, context) => {
    const fault = faultOf(rule);
    if (fault) context.addIssue({ code: 'custom', path: [fault.field], message: fault.message });
  });
export type RuleBody = z.output<typeof RuleBody>;

type AnyRule =
  | { kind: 'threshold' | 'rate' | 'absence' }
  | { kind: 'range'; low: number; high: number; hysteresis: number }
  | { kind: 'anomaly'; warmup: number; window: number };

function faultOf(rule: AnyRule): { field: string; message: string } | null {
  if (rule.kind === 'range') {
    if (rule.low > rule.high) return { field: 'low', message: 'lies above high' };
    if (rule.low + rule.hysteresis > rule.high - rule.hysteresis)
      return { field: 'hysteresis', message: 'leaves nothing between low and high: it would never clear' };
  }
  if (rule.kind === 'anomaly' && rule.warmup > rule.window)
    return { field: 'warmup', message: 'is longer than the window' };
  return null;
}

/** A rule and whether it is armed. */
export type StoredRule = RuleBody & { readonly id: string };

/** @returns the rule as the actors take it */
export function ruleOf({ enabled: _, ...rule }: StoredRule): Rule {
  return rule.kind === 'anomaly' ? { ...rule, hysteresis: 0 } : rule;
}

/** What is wrong with it, in one line. */
export const problemText = (error: z.ZodError): string =>
  error.issues
    .map(({ path, message }) => (path.length > 0 ? `${path.join('.')}: ${message}` : message))
    .join('; ');
