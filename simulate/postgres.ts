/**
 * PostgreSQL as far as the cloud asks it: the statements of leases, dictionary, twins, gateways and history's transaction,
 * by their text, against tables in memory. A statement it does not know ends the run as a failure.
 *
 * What it can do to its clients: be away, be slow, lose the answer of a commit it has made, come back as it was earlier.
 * Entries of tables are replaced, never changed, so an earlier state is a few copied maps.
 */
import { Writable } from 'node:stream';
import pg from 'pg';
import { RangeSet } from '../protocol/range-set.ts';
import { type CopiedRow, readCopy } from './copy-reader.ts';
import type { Journal } from './journal.ts';
import type { Network } from './network.ts';
import { readSettle, type Settle } from './settle-text.ts';
import type { Process, World } from './world.ts';

export interface StoredIncident {
  readonly id: string;
  readonly rule: string;
  readonly kind: string;
  readonly site: string;
  readonly device: string | null;
  readonly openedAt: number;
  readonly clearedAt: number | null;
  /** Known only afterwards, from a backlog. */
  readonly late: boolean;
}

interface LogRow {
  readonly id: number;
  readonly site: string;
  readonly gateway: string;
  readonly logId: string;
  readonly settled: RangeSet;
  /** Messages that came by the backfill lane. */
  readonly late: number;
}

interface Tables {
  nodes: Map<string, { id: string; name: string; actors: boolean; draining: boolean; at: number }>;
  partitions: Map<number, { id: number; epoch: number; owner: string | null }>;
  cursors: Map<string, { partition: number; lane: string; created: string; sequence: number }>;
  logs: Map<number, LogRow>;
  devices: Map<string, number>;
  shapes: Map<string, { id: number; names: readonly string[] }>;
  rows: CopiedRow[];
  twins: Map<string, { site: string; device: string; version: number; state: string }>;
  incidents: Map<string, StoredIncident>;
}

export interface PostgresModel {
  /** What a process uses as its `Pool`. */
  pool(process: Process, host: string): pg.Pool;
  readonly tables: Tables;
  /** The row's message, whatever the dictionary calls it. */
  names(): Record<'n' | 'v', (row: CopiedRow) => number | undefined> & {
    device: (id: number) => string | undefined;
  };
  /** Share of answers whose connection breaks after the work was done. */
  loseAnswers(share: number): void;
  stop(): void;
  start(): void;
  remember(): void;
  /** As it was when it was told to remember. */
  restore(): void;
  readonly isUp: boolean;
}

export interface PostgresBugs {
  /** Takes what comes under any epoch. */
  readonly skipFence: boolean;
  /** Knows of nothing that it is there already. */
  readonly skipLedger: boolean;
}

type Row = Record<string, unknown>;
type Statement = (...values: never[]) => Row[];

export function newPostgres(
  world: World,
  network: Network,
  journal: Journal,
  partitions: number,
  bugs: PostgresBugs,
): PostgresModel {
  const tables: Tables = {
    nodes: new Map(),
    partitions: new Map(
      Array.from({ length: partitions }, (_, id) => [id, { id, epoch: 0, owner: null }] as const),
    ),
    cursors: new Map(),
    logs: new Map(),
    devices: new Map(),
    shapes: new Map(),
    rows: [],
    twins: new Map(),
    incidents: new Map(),
  };
  let up = true;
  let startedAt = world.now() - 10_000;
  let generation = 1;
  let answersLost = 0;
  let remembered = copyOf(tables);
  const known = new Map<string, Statement>();

  const errorOf = (code: string, message: string): Error => {
    const error = new pg.DatabaseError(message, message.length, 'error');
    error.code = code;
    return error;
  };
  const logOf = (site: string, gateway: string, logId: string) =>
    tables.logs.values().find(log => log.site === site && log.gateway === gateway && log.logId === logId);
  const liveNodes = (leaseMs: number) =>
    [...tables.nodes.values()].filter(node => Math.max(node.at, startedAt) > world.now() - leaseMs);

  const statements: readonly (readonly [RegExp, Statement])[] = [
    [
      /^select holdfast\.beat\(/,
      (id: string, name: string, actors: boolean, draining: boolean, leaseMs: number) => {
        tables.nodes.set(id, {
          id: id,
          name: name,
          actors: actors,
          draining: draining,
          at: world.now(),
        });
        const nodes = liveNodes(leaseMs).map(node => ({
          id: node.id,
          name: node.name,
          actors: node.actors,
          draining: node.draining,
        }));
        return [{ view: { nodes, partitions: [...tables.partitions.values()] } }];
      },
    ],
    [
      /holdfast\.claim\(/,
      (node: string, ids: number[], leaseMs: number) => {
        const alive = new Set(liveNodes(leaseMs).map(({ id }) => id));
        return ids.flatMap(id => {
          const { epoch, owner } = tables.partitions.get(id)!;
          if (owner !== null && owner !== node && alive.has(owner)) return [];
          const next = {
            id,
            epoch: Math.max(epoch + 1, Math.round(world.now() * 1000)),
            owner: node,
          };
          tables.partitions.set(id, next);
          return [{ partition: id, epoch: String(next.epoch) }];
        });
      },
    ],
    [
      /from holdfast\.stream_cursor where partition = any \(\$1\)$/,
      (ids: number[]) =>
        [...tables.cursors.values()]
          .filter(cursor => ids.includes(cursor.partition))
          .map(cursor => ({ ...cursor, sequence: String(cursor.sequence) })),
    ],
    [
      /^select distinct site from holdfast\.(gateway_log|twin)/,
      () => [...new Set([...tables.logs.values()].map(({ site }) => site))].map(site => ({ site })),
    ],
    [
      /^update holdfast\.partition set owner = null/,
      (id: number, epoch: number) => {
        const partition = tables.partitions.get(id)!;
        if (partition.epoch === epoch) tables.partitions.set(id, { ...partition, owner: null });
        return [];
      },
    ],
    [
      /^select mine\.id from unnest/,
      (ids: number[], epochs: number[]) =>
        ids.filter((id, index) => tables.partitions.get(id)?.epoch !== epochs[index]).map(id => ({ id })),
    ],
    [
      /^delete from holdfast\.node/,
      (id: string) => {
        tables.nodes.delete(id);
        return [];
      },
    ],
    [
      /^insert into holdfast\.gateway_log/,
      (site: string, gateway: string, logId: string) => {
        if (!logOf(site, gateway, logId)) {
          const id = tables.logs.size + 1;
          tables.logs.set(id, {
            id,
            site: site,
            gateway: gateway,
            logId: logId,
            settled: RangeSet.empty,
            late: 0,
          });
        }
        return [];
      },
    ],
    [
      /^select id, settled::text from holdfast\.gateway_log/,
      (site: string, gateway: string, logId: string) => {
        const { id, settled } = logOf(site, gateway, logId)!;
        return [{ id, settled: bugs.skipLedger ? '{}' : settled.toString() }];
      },
    ],
    [
      /holdfast\.device/,
      (site: string, names: string[]) =>
        names.map(name => {
          const key = `${site}/${name}`;
          const id = tables.devices.get(key) ?? tables.devices.size + 1;
          tables.devices.set(key, id);
          return { id, name };
        }),
    ],
    [
      /^with shape as/,
      (signature: string, names: string[]) => {
        const id = tables.shapes.get(signature)?.id ?? tables.shapes.size + 1;
        tables.shapes.set(signature, { id, names: names });
        return [{ id }];
      },
    ],
    [/^select holdfast\.ensure_day/, () => []],
    [
      /^select id, cleared_at is not null as cleared from holdfast\.incident/,
      (ids: string[]) =>
        ids.flatMap(id => {
          const known = tables.incidents.get(id);
          return known ? [{ id, cleared: known.clearedAt !== null }] : [];
        }),
    ],
    [
      /from holdfast\.incident where site = \$1 and kind = 'link' and cleared_at is null$/,
      (site: string) =>
        [...tables.incidents.values()]
          .filter(
            incident => incident.site === site && incident.rule === 'link' && incident.clearedAt === null,
          )
          .map(incident => ({
            ...incident,
            severity: 'critical',
            metric: null,
            summary: '',
          })),
    ],
    [
      /^select device, state from holdfast\.twin where site = \$1/,
      (site: string, devices: string[] | null) =>
        [...tables.twins.values()]
          .filter(twin => twin.site === site && (devices == null || devices.includes(twin.device)))
          .map(({ device, state }) => ({ device, state })),
    ],
    [
      /^select coalesce\(\(select json_object_agg\(log_id/,
      (site: string, gateway: string, ids: string[], partition: number) => {
        const settled: Record<string, string> = {};
        for (const log of tables.logs.values()) {
          if (log.site === site && log.gateway === gateway && ids.includes(log.logId)) {
            settled[log.logId] = log.settled.toString();
          }
        }
        return [
          {
            settled,
            cursors: [...tables.cursors.values()].filter(cursor => cursor.partition === partition),
          },
        ];
      },
    ],
    [/^select holdfast\.server_started\(\)/, () => [{ started: String(startedAt) }]],
    [/from holdfast\.gateway order by/, () => []],
  ];

  function statementOf(text: string): Statement {
    let statement = known.get(text);
    if (!statement) {
      statement = statements.find(([pattern]) => pattern.test(text.replace(/\s+/g, ' ')))?.[1];
      if (!statement) throw new Error(`the simulated PostgreSQL does not know: ${text}`);
      known.set(text, statement);
    }
    return statement;
  }

  /** `holdfast.settle(…)` and what comes with it, at once. */
  function settle(text: string, rows: readonly CopiedRow[]): void {
    const expected = /holdfast\.expect_server\('([^']*)'\)/.exec(text)?.[1];
    if (expected !== String(startedAt)) throw errorOf('HF003', 'PostgreSQL has been started anew');
    const { partition, epoch, ranges, cursors, twins, incidents } = readSettle(text);
    const current = tables.partitions.get(partition)!;
    if (current.epoch !== epoch) {
      if (!bugs.skipFence) throw errorOf('HF001', `partition ${partition} is not owned under epoch ${epoch}`);
      journal.staleEffects.push(`PostgreSQL took rows of partition ${partition} under epoch ${epoch}`);
    }
    const logs = new Map<number, LogRow>();
    for (const entry of ranges) {
      const log = tables.logs.get(entry.log);
      const fresh = RangeSet.parse(entry.ranges);
      const repeats = log && !log.settled.intersection(fresh).isEmpty;
      if (!log || (repeats && !bugs.skipLedger)) throw errorOf('HF002', `log ${entry.log}: settled already`);
      logs.set(entry.log, {
        ...log,
        settled: log.settled.union(fresh),
        late: log.late + entry.late,
      });
    }
    for (const [id, log] of logs) tables.logs.set(id, log);
    for (const { lane, created, sequence } of cursors) {
      const key = `${partition}.${lane}`;
      const before = tables.cursors.get(key);
      const same = before?.created === created;
      tables.cursors.set(key, {
        partition,
        lane,
        created,
        sequence: same ? Math.max(before.sequence, sequence) : sequence,
      });
    }
    for (const twin of twins) {
      const key = `${twin.site}/${twin.device}`;
      const before = tables.twins.get(key);
      if (!before || before.version < twin.version) tables.twins.set(key, twin);
    }
    noteIncidents(incidents.map(storedIncident));
    tables.rows.push(...rows);
  }

  /** As one statement does: it sees the table as it was before it. */
  function noteIncidents(incoming: readonly StoredIncident[]): void {
    const there = [...tables.incidents.values()];
    for (const incident of incoming) {
      const { id, clearedAt, late } = incident;
      const before = tables.incidents.get(id);
      const onTime = late ? incoming.filter(each => !each.late) : [];
      const others = [...there, ...onTime].filter(each => isOneCause(each, incident));
      if (late && others.length > 0) continue;
      for (const other of late ? [] : others) if (other.late) tables.incidents.delete(other.id);
      if (!before) tables.incidents.set(id, incident);
      else if (before.clearedAt === null && clearedAt !== null) {
        tables.incidents.set(id, { ...before, clearedAt });
      }
    }
  }

  /** There and back. What is lost on the way back was done all the same (unknown outcome). */
  function ask<T>(process: Process, host: string, label: string, work: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const lost = (message: string, afterMs: number) =>
        void world.after(afterMs, process, 'pg lost', () => reject(new Error(message)));
      if (!network.reaches(host, 'postgres')) return lost('timeout expired', network.noticeMs());
      world.after(network.aloneMs(host, 'postgres'), null, label, () => {
        if (!up) return lost('connect ECONNREFUSED', network.aloneMs('postgres', host));
        if (!network.reaches(host, 'postgres')) return lost('timeout expired', network.noticeMs());
        let answer: () => void;
        try {
          const value = work();
          answer = () => resolve(value);
        } catch (error) {
          if (!(error instanceof pg.DatabaseError)) world.crash(error);
          answer = () => reject(error as Error);
        }
        const of = generation;
        world.after(network.aloneMs('postgres', host), process, 'pg answer', () => {
          if (of !== generation || (answersLost > 0 && world.chance(answersLost)))
            reject(new Error('Connection terminated unexpectedly'));
          else if (!network.reaches(host, 'postgres')) lost('timeout expired', network.noticeMs());
          else answer();
        });
      });
    });
  }

  function open(process: Process, host: string) {
    let rows: CopiedRow[] = [];
    return {
      on: () => {},
      off: () => {},
      release: () => {},
      query(statement: string | { text: string }) {
        if (typeof statement !== 'string')
          return new CopyTarget(bytes => {
            rows = readCopy(bytes);
          });
        if (statement === 'begin' || statement === 'rollback') {
          return ask(process, host, `pg ${statement}`, () => ({ rows: [] }));
        }
        const of = rows;
        rows = [];
        return ask(process, host, `pg commit ${of.length}`, () => settle(statement, of));
      },
    };
  }

  return {
    tables,
    get isUp() {
      return up;
    },
    pool(process, host) {
      const pool = {
        query: (text: string, values: never[] = []) =>
          ask(process, host, 'pg query', () => ({
            rows: statementOf(text)(...values),
          })),
        connect: async () => open(process, host),
        on: () => pool,
        end: async () => {},
      };
      return pool as unknown as pg.Pool;
    },
    names() {
      const devices = new Map([...tables.devices].map(([key, id]) => [id, key]));
      const shapes = new Map([...tables.shapes.values()].map(({ id, names }) => [id, names]));
      const numberOf = (name: string) => (row: CopiedRow) =>
        row.numbers[shapes.get(row.shape)?.indexOf(name) ?? -1];
      return {
        device: id => devices.get(id),
        n: numberOf('n'),
        v: numberOf('v'),
      };
    },
    loseAnswers(share) {
      answersLost = share;
    },
    stop() {
      up = false;
      generation++;
    },
    start() {
      up = true;
      startedAt = world.now();
    },
    remember() {
      remembered = copyOf(tables);
    },
    restore() {
      Object.assign(tables, copyOf(remembered));
    },
  };
}

function copyOf(tables: Tables): Tables {
  return {
    nodes: new Map(tables.nodes),
    partitions: new Map(tables.partitions),
    cursors: new Map(tables.cursors),
    logs: new Map(tables.logs),
    devices: new Map(tables.devices),
    shapes: new Map(tables.shapes),
    rows: [...tables.rows],
    twins: new Map(tables.twins),
    incidents: new Map(tables.incidents),
  };
}

/** What the client's COPY goes to. */
class CopyTarget extends Writable {
  readonly #chunks: Buffer[] = [];
  readonly #done: (bytes: Buffer) => void;
  constructor(done: (bytes: Buffer) => void) {
    super();
    this.#done = done;
  }
  override _write(chunk: Buffer, _encoding: string, next: () => void): void {
    this.#chunks.push(chunk);
    next();
  }
  override _final(next: () => void): void {
    this.#done(Buffer.concat(this.#chunks));
    next();
  }
}

const storedIncident = ({ opened_at, cleared_at, ...same }: Settle['incidents'][number]): StoredIncident => ({
  ...same,
  openedAt: opened_at,
  clearedAt: cleared_at,
});

/** Two that are over, of one rule and device, and lie over one another. */
const isOneCause = (a: StoredIncident, b: StoredIncident): boolean =>
  a.id !== b.id &&
  a.rule === b.rule &&
  a.site === b.site &&
  a.device === b.device &&
  a.clearedAt !== null &&
  b.clearedAt !== null &&
  a.openedAt < b.clearedAt &&
  a.clearedAt > b.openedAt;
