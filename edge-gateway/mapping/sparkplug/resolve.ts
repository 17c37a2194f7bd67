/**
 * What a metric of a data message is called and what its value means, by the birth that it belongs to. Pure: no name is
 * guessed.
 */
import { Unusable } from '../decoded.ts';
import type { Birth, KnownMetric } from './certificate.ts';
import { needsDatatype, type SparkplugMetric } from './payload.ts';

/**
 * @param birth null when none is known for certain
 * @throws Unusable when it cannot be said
 */
export function resolveMetric(metric: SparkplugMetric, birth: Birth | null): KnownMetric {
  const { name, alias, datatype } = metric;
  const known =
    name === null ? (alias === null ? undefined : birth?.byAlias.get(alias)) : birth?.byName.get(name);
  const resolvedName = name ?? known?.name;
  if (resolvedName === undefined) {
    throw new Unusable(alias === null ? 'a metric without name and alias' : unknown(`alias ${alias}`, birth));
  }
  if (known === undefined && needsDatatype(metric)) {
    throw new Unusable(unknown(`the datatype of "${resolvedName.slice(0, 60)}"`, birth));
  }
  return { name: resolvedName, datatype: datatype ?? known?.datatype ?? 0 };
}

const unknown = (what: string, birth: Birth | null): string =>
  birth === null
    ? `${what} without a birth that is known for certain; the node is asked to be born again`
    : `${what} is not in the last birth; the node is asked to be born again`;

/** @returns why the message cannot be read, or null */
export function faultOf(metrics: readonly SparkplugMetric[], birth: Birth | null): string | null {
  try {
    for (const metric of metrics) resolveMetric(metric, birth);
    return null;
  } catch (error) {
    if (error instanceof Unusable) return error.message;
    throw error;
  }
}
