/**
 * Reads the machine's own list of package sources, in both of its formats, and writes the part we need back as
 * deb822. Pure text in, values out; which mirror and which keys are trusted stays the machine's decision.
 */

export interface AptSource {
  readonly uris: readonly string[];
  readonly suites: readonly string[];
  readonly components: readonly string[];
  /** Everything else, by its deb822 field name: Signed-By, Architectures, Trusted … */
  readonly options: Readonly<Record<string, string>>;
}

/** `*.sources`: stanzas of fields; a value may go on over indented lines. Disabled and source-only ones are left out. */
export function parseDeb822(text: string): AptSource[] {
  const sources: AptSource[] = [];
  for (const stanza of text.split(/\n[ \t]*\n/)) {
    const fields = new Map<string, { name: string; value: string }>();
    let last: string | undefined;
    for (const line of stanza.split('\n')) {
      if (line.startsWith('#')) continue;
      if (/^[ \t]/.test(line)) {
        const field = last === undefined ? undefined : fields.get(last);
        if (field) field.value += `\n${line.trimEnd()}`;
        continue;
      }
      const colon = line.indexOf(':');
      if (colon < 1) continue;
      const name = line.slice(0, colon).trim();
      last = name.toLowerCase();
      fields.set(last, { name, value: line.slice(colon + 1).trim() });
    }
    const words = (name: string) => (fields.get(name)?.value ?? '').split(/\s+/).filter(word => word !== '');
    if (
      !words('types').includes('deb') ||
      /^(no|false|0|without|off|disable)$/i.test(fields.get('enabled')?.value ?? '')
    )
      continue;
    const known = new Set(['types', 'uris', 'suites', 'components', 'enabled']);
    sources.push({
      uris: words('uris'),
      suites: words('suites'),
      components: words('components'),
      options: Object.fromEntries(
        [...fields].flatMap(([key, field]) => (known.has(key) ? [] : [[field.name, field.value] as const])),
      ),
    });
  }
  return sources.filter(isFetched);
}

/** `deb [signed-by=… arch=…] uri suite component…`, one source per line. */
export function parseOneLine(text: string): AptSource[] {
  const sources: AptSource[] = [];
  for (const line of text.split('\n')) {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)([^#]*)/.exec(line);
    if (!match) continue;
    const [, options = '', uri = '', suite = '', components = ''] = match;
    sources.push({
      uris: [uri],
      suites: [suite],
      components: components.split(/\s+/).filter(word => word !== ''),
      options: Object.fromEntries(
        [...options.matchAll(/([\w-]+)\+?=(\S+)/g)].map(([, name = '', value = '']) => [
          oneLineFieldNames[name.toLowerCase()] ?? titleCase(name),
          value.replaceAll(',', ' '),
        ]),
      ),
    });
  }
  return sources.filter(isFetched);
}

const oneLineFieldNames: Readonly<Record<string, string>> = {
  arch: 'Architectures',
  lang: 'Languages',
  target: 'Targets',
};

function titleCase(name: string): string {
  return name.replace(/(^|-)([a-z])/g, (_, dash: string, letter: string) => dash + letter.toUpperCase());
}

/** A disc that somebody would have to put in is of no use here. */
function isFetched(source: AptSource): boolean {
  return (
    source.suites.length > 0 && source.uris.length > 0 && !source.uris.some(uri => uri.startsWith('cdrom:'))
  );
}

export function formatDeb822(sources: readonly AptSource[]): string {
  return sources
    .map(source =>
      [
        'Types: deb',
        `URIs: ${source.uris.join(' ')}`,
        `Suites: ${source.suites.join(' ')}`,
        ...(source.components.length > 0 ? [`Components: ${source.components.join(' ')}`] : []),
        ...Object.entries(source.options).map(([name, value]) => `${name}: ${value}`),
        '',
      ].join('\n'),
    )
    .join('\n');
}

export interface Distribution {
  /** `debian`, `ubuntu`, or what is like them. */
  readonly ids: readonly string[];
  /** `bookworm`, `noble`. */
  readonly codename: string;
  /** Names what was unpacked for this release, so that an upgrade of the system unpacks anew. */
  readonly release: string;
}

/** From `/etc/os-release`; undefined when that names no Debian or Ubuntu relative. */
export function parseOsRelease(text: string): Distribution | undefined {
  const fields = new Map<string, string>();
  for (const line of text.split('\n')) {
    const match = /^([A-Z_]+)=(?:"([^"]*)"|'([^']*)'|(.*))$/.exec(line.trim());
    if (match) fields.set(match[1] ?? '', match[2] ?? match[3] ?? match[4] ?? '');
  }
  const ids = [fields.get('ID') ?? '', ...(fields.get('ID_LIKE') ?? '').split(/\s+/)].filter(id => id !== '');
  if (!ids.includes('debian') && !ids.includes('ubuntu')) return undefined;
  return {
    ids,
    codename: fields.get('VERSION_CODENAME') ?? '',
    release: `${fields.get('ID') ?? ''}-${fields.get('VERSION_ID') ?? fields.get('VERSION_CODENAME') ?? ''}`,
  };
}

/**
 * Newer suites of the same distribution, for a package that is too old in the configured one: the machine's own
 * mirror, components and keys with another suite name.
 */
export function newerSuites(sources: readonly AptSource[], distribution: Distribution): AptSource[] {
  const own = sources.find(
    ({ suites, components }) =>
      components.includes('main') &&
      suites.some(
        suite => suite === distribution.codename || ['stable', 'oldstable', 'testing'].includes(suite),
      ),
  );
  if (!own) return [];
  const names = distribution.ids.includes('ubuntu') ? ['devel'] : ['trixie', 'stable', 'unstable'];
  return names
    .filter(name => !own.suites.includes(name))
    .map(name => ({ ...own, suites: [name], options: withoutSuiteOptions(own.options) }));
}

/** What holds for one suite of a source only. */
function withoutSuiteOptions(options: AptSource['options']): AptSource['options'] {
  return Object.fromEntries(
    Object.entries(options).filter(([name]) => !/^(snapshot|inrelease-path)$/i.test(name)),
  );
}
