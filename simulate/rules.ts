/** The rules of the simulated cluster: one threshold, that devices pass every now and then for a few readings. */
import type { Rule } from '../cloud/actors/rule.ts';
import { indexRules, type RuleIndex } from '../cloud/actors/rule-index.ts';

export const THRESHOLD = { above: 50, hysteresis: 5 } as const;

const rule: Rule = {
  id: 'high',
  kind: 'threshold',
  metric: 'v',
  comparison: 'above',
  threshold: THRESHOLD.above,
  hysteresis: THRESHOLD.hysteresis,
  forMs: 0,
  severity: 'warning',
  site: null,
  device: null,
  deviceType: null,
  tag: null,
};
const index = indexRules([rule], 1);

export const rulesOfSimulation = (): RuleIndex => index;
