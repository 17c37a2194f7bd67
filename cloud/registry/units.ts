/** Units of measurement and the way from one to another, by js-quantities. Pure. */
import Qty from 'js-quantities';

export type Conversion = (value: number) => number;

export type ConversionOutcome =
  | { readonly ok: true; readonly convert: Conversion }
  | { readonly ok: false; readonly reason: string };

/** A reading's temperature is a temperature, not a difference of two; and people write it in more than one way. */
const temperatures: ReadonlyMap<string, string> = new Map(
  Object.entries({
    '°C': 'tempC',
    degC: 'tempC',
    celsius: 'tempC',
    '°F': 'tempF',
    degF: 'tempF',
    fahrenheit: 'tempF',
    '°R': 'tempR',
    degR: 'tempR',
  }),
);
const KELVINS = new Set(['K', 'degK', 'kelvin']);

/** More than a float keeps of a sum of two conversions, and far more than a sensor measures. */
const SIGNIFICANT_DIGITS = 12;

/**
 * @param from unit that is reported, such as `°F`, `psi`, `m3/h`
 * @param to unit that is stored
 * @returns why not, when one of them is not known or they measure different things
 */
export function conversionBetween(from: string, to: string): ConversionOutcome {
  const [source, target] = named(from, to);
  try {
    // The library takes 20 µs for one value: it is asked for the line, which all of its conversions are.
    const ask = Qty.swiftConverter(source, target);
    const [offset, far, farther] = [ask(0), ask(1000), ask(2000)] as number[];
    const factor = (far! - offset!) / 1000;
    if (!(Math.abs(farther! - (offset! + factor * 2000)) <= Math.abs(farther!) * 1e-9)) {
      throw new Error('there is no straight way between them');
    }
    return { ok: true, convert: value => converted(value, factor, offset!) };
  } catch (error) {
    return { ok: false, reason: `"${from}" to "${to}": ${reasonOf(error)}` };
  }
}

function named(from: string, to: string): [string, string] {
  const source = temperatures.get(from) ?? from;
  const target = temperatures.get(to) ?? to;
  const isTemperature = [source, target].some(unit => unit.startsWith('temp'));
  const absolute = (unit: string) => (isTemperature && KELVINS.has(unit) ? 'tempK' : unit);
  return [absolute(source), absolute(target)];
}

/** A value that has no finite counterpart stays what it was: it is in nobody's unit, and must stop nothing (H). */
function converted(value: number, factor: number, offset: number): number {
  const scaled = value * factor;
  const result = scaled + offset;
  if (!Number.isFinite(result)) return value;
  // What two large terms leave of one another is rounding alone: 32 °F are 0 °C.
  if (Math.abs(result) < Math.abs(offset) * 1e-14) return 0;
  return Number(result.toPrecision(SIGNIFICANT_DIGITS));
}

function reasonOf(error: unknown): string {
  const { message } = error as Error;
  // The library takes names of its own properties for units, and breaks.
  return error instanceof TypeError ? 'a unit is not known' : message.toLowerCase();
}
