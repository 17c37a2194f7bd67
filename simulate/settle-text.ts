/** What a history transaction settles, read out of the text that carries it to PostgreSQL. */

export interface Settle {
  readonly partition: number;
  readonly epoch: number;
  readonly ranges: readonly { log: number; ranges: string; late: number }[];
  readonly cursors: readonly {
    lane: string;
    created: string;
    sequence: number;
  }[];
  readonly twins: readonly {
    site: string;
    device: string;
    version: number;
    state: string;
  }[];
  readonly incidents: readonly {
    id: string;
    rule: string;
    kind: string;
    site: string;
    device: string | null;
    opened_at: number;
    cleared_at: number | null;
    late: boolean;
  }[];
}

/** The arguments of `holdfast.settle` in the text of the last round trip. */
export function readSettle(text: string): Settle {
  const head = /holdfast\.settle\((\d+), (\d+), /.exec(text);
  if (!head) throw new Error(`not a settling: ${text.slice(0, 100)}`);
  const parts: unknown[] = [];
  let at = head.index + head[0].length;
  while (parts.length < 5) {
    const escaped = text.startsWith(" E'", at) || text.startsWith("E'", at);
    const start = text.indexOf("'", at) + 1;
    let end = start;
    let json = '';
    for (;;) {
      const quote = text.indexOf("'", end);
      if (text[quote + 1] !== "'") {
        json += text.slice(end, quote);
        end = quote;
        break;
      }
      json += text.slice(end, quote + 1);
      end = quote + 2;
    }
    parts.push(JSON.parse(escaped ? json.replaceAll('\\\\', '\\') : json));
    at = text.indexOf(',', end + 1) + 1;
    while (text[at] === ' ' && text[at + 1] !== 'E') at++;
    if (at === 0) break;
  }
  const [ranges, , cursors, twins, incidents] = parts as never[];
  return {
    partition: Number(head[1]),
    epoch: Number(head[2]),
    ranges: ranges!,
    cursors: cursors!,
    twins: twins!,
    incidents: incidents!,
  };
}
