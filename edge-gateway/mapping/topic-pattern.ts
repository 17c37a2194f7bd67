/**
 * Topic patterns with named levels, and templates that use them. Pure.
 *
 *   factory/{line}/{device}/state    two named levels
 *   +/meter/#                        any one level; any number of levels at the end, also none
 *   "{line}-{device}"                a template
 */
import { Unusable } from './decoded.ts';

type Level =
  | { readonly is: 'text'; readonly text: string }
  | { readonly is: 'name'; readonly name: string }
  | { readonly is: 'any' };

export interface TopicPattern {
  readonly levels: readonly Level[];
  /** Whether any further levels may follow. */
  readonly open: boolean;
  readonly names: readonly string[];
}

const NAMED = /^\{([A-Za-z][A-Za-z0-9_]*)\}$/;

/** @throws Unusable with what is wrong and what would be right */
export function parsePattern(text: string): TopicPattern {
  if (text === '') throw new Unusable('an empty pattern: expected one such as factory/{line}/{device}/state');
  const parts = text.split('/');
  const open = parts.at(-1) === '#';
  const names: string[] = [];
  const levels = (open ? parts.slice(0, -1) : parts).map((part): Level => {
    if (part === '+') return { is: 'any' };
    const name = NAMED.exec(part)?.[1];
    if (name === undefined) {
      if (/[{}+#]/.test(part)) {
        throw new Unusable(`level "${part}": expected text, {name}, + for any level, or # as the last one`);
      }
      return { is: 'text', text: part };
    }
    if (names.includes(name)) throw new Unusable(`{${name}} twice: give every named level its own name`);
    names.push(name);
    return { is: 'name', name };
  });
  return { levels, open, names };
}

/** @returns the named levels, or null when the topic does not match */
export function matchTopic(pattern: TopicPattern, levels: readonly string[]): Map<string, string> | null {
  const { levels: wanted, open } = pattern;
  if (levels.length < wanted.length || (levels.length > wanted.length && !open)) return null;
  // As with MQTT's own filters, wildcards at the front do not reach the broker's own topics.
  if (wanted[0]?.is !== 'text' && levels[0]?.startsWith('$')) return null;
  const found = new Map<string, string>();
  for (const [index, level] of wanted.entries()) {
    if (level.is === 'text' && level.text !== levels[index]) return null;
    if (level.is === 'name') found.set(level.name, levels[index]!);
  }
  return found;
}

const VARIABLE = /\{([^{}]*)\}/g;

/** @returns what is wrong with a template for a topic of these named levels, or null */
export function templateFault(template: string, names: readonly string[]): string | null {
  const known = names.length === 0 ? 'the topic names no level' : `the topic names ${names.join(', ')}`;
  for (const [, name] of template.matchAll(VARIABLE)) {
    if (!names.includes(name!)) return `{${name}} is no level of the topic: ${known}`;
  }
  if (/[{}]/.test(template.replace(VARIABLE, ''))) return 'a brace without its other half: expected {name}';
  return null;
}

export const fillTemplate = (template: string, levels: ReadonlyMap<string, string>): string =>
  template.replace(VARIABLE, (_, name: string) => levels.get(name) ?? '');
