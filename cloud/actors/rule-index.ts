/**
 * One version of the rule book, arranged so that a reading finds its rules by device and metric without looking at the
 * others. What applies to a device is put together once per site, type and tags and shared by all such devices; only a
 * device that a rule names has its own. Pure but for what it remembers of its own work, which is bounded (F).
 */
import type { AbsenceRule, Rule, Traits, ValueRule } from './rule.ts';

/** The rules of one device. */
export interface TwinRules {
  readonly byMetric: ReadonlyMap<string, MetricRules>;
  /** Of the device as a whole. */
  readonly absences: readonly AbsenceRule[];
  readonly isEmpty: boolean;
}

export interface MetricRules {
  readonly values: readonly ValueRule[];
  readonly absences: readonly AbsenceRule[];
}

export interface RuleIndex {
  /** Grows with every change; 0: no rule was ever read, which says nothing about what there is. */
  readonly version: number;
  readonly rules: readonly Rule[];
  byId(id: string): Rule | undefined;
  /** @param traits null when nothing is known: rules for a type or a tag do not apply */
  of(site: string, device: string, traits: Traits | null): TwinRules;
}

/** Combinations of site, device, type and tags that are kept ready; beyond it all are put together anew. */
const READY_MAX = 20_000;

export const NO_RULES: TwinRules = { byMetric: new Map(), absences: [], isEmpty: true };

export function indexRules(rules: readonly Rule[], version: number): RuleIndex {
  const byId = new Map(rules.map(rule => [rule.id, rule]));
  const bySite = Map.groupBy(rules, rule => rule.site);
  const sites = new Map<string, SiteRules>();
  let ready = 0;

  function siteRules(site: string): SiteRules {
    let known = sites.get(site);
    if (!known) {
      if (sites.size >= READY_MAX) sites.clear();
      known = newSiteRules([...(bySite.get(null) ?? []), ...(bySite.get(site) ?? [])]);
      sites.set(site, known);
    }
    return known;
  }

  return {
    version,
    rules,
    byId: id => byId.get(id),
    of(site, device, traits) {
      if (traits?.retired) return NO_RULES;
      const found = siteRules(site);
      const named = found.devices.has(device);
      if (!named && (traits === null || !found.byTraits)) return found.plain;
      const key = keyOf(named ? device : '', found.byTraits ? traits : null);
      let put = found.ready.get(key);
      if (!put) {
        if (++ready > READY_MAX) {
          for (const of of sites.values()) of.ready.clear();
          ready = 1;
        }
        put = compile(found.all.filter(rule => fits(rule, device, traits)));
        found.ready.set(key, put);
      }
      return put;
    },
  };
}

interface SiteRules {
  readonly all: readonly Rule[];
  /** Of a device that no rule names and nothing is known of. */
  readonly plain: TwinRules;
  /** That a rule names. */
  readonly devices: ReadonlySet<string>;
  /** Whether any rule asks for a type or a tag. */
  readonly byTraits: boolean;
  readonly ready: Map<string, TwinRules>;
}

const newSiteRules = (all: readonly Rule[]): SiteRules => ({
  all,
  plain: compile(all.filter(rule => rule.device === null && rule.deviceType === null && rule.tag === null)),
  devices: new Set(all.flatMap(rule => rule.device ?? [])),
  byTraits: all.some(rule => rule.deviceType !== null || rule.tag !== null),
  ready: new Map(),
});

const keyOf = (device: string, traits: Traits | null): string =>
  `${device}\n${traits?.type ?? ''}\n${traits?.tags.join('\n') ?? ''}`;

const fits = (rule: Rule, device: string, traits: Traits | null): boolean =>
  (rule.device === null || rule.device === device) &&
  (rule.deviceType === null || rule.deviceType === traits?.type) &&
  (rule.tag === null || (traits?.tags.includes(rule.tag) ?? false));

function compile(rules: readonly Rule[]): TwinRules {
  if (rules.length === 0) return NO_RULES;
  const byMetric = new Map<string, { values: ValueRule[]; absences: AbsenceRule[] }>();
  const absences: AbsenceRule[] = [];
  const ofMetric = (metric: string) => {
    let found = byMetric.get(metric);
    if (!found) {
      found = { values: [], absences: [] };
      byMetric.set(metric, found);
    }
    return found;
  };
  for (const rule of rules) {
    if (rule.kind !== 'absence') ofMetric(rule.metric).values.push(rule);
    else if (rule.metric === null) absences.push(rule);
    else ofMetric(rule.metric).absences.push(rule);
  }
  return { byMetric, absences, isEmpty: false };
}
