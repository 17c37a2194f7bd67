/**
 * One round: a number of the fleet's messages through a subject, from the first publish until every one is stored and
 * pushed; then history is counted. Closed loop: at most `windowMessages` are published and not yet on the dashboard.
 */
import type { LoadGenerator } from './load-generator.ts';
import { cpuMs, machineCpuMs } from './process-cpu.ts';
import { METRICS_PER_MESSAGE, type Subject } from './subject.ts';

const WINDOW_MESSAGES = 20_000;
const ROUND_TIMEOUT_MS = 120_000;

export interface Round {
  readonly messages: number;
  readonly readings: number;
  readonly seconds: number;
  readonly payloadBytes: number;
  /** Milliseconds of CPU by process group, the load generator and the harness left out. */
  readonly cpuMs: Readonly<Record<string, number>>;
  readonly generatorCpuMs: number;
  readonly harnessCpuMs: number;
  /** Of the whole machine; what is left after the above is other people's, and the kernel's own. */
  readonly machineCpuMs: number;
  /** Updates of single devices that the dashboard got. */
  readonly updates: number;
}

/** Rejects when anything is missing or double. */
export async function runRound(subject: Subject, load: LoadGenerator, messages: number): Promise<Round> {
  const prepared = await load.prepare(messages);
  const done = load.done();
  const updatesBefore = subject.push.updates;
  const cpuBefore = cpuByGroup(subject);
  const machineBefore = machineCpuMs();
  const harnessBefore = process.cpuUsage();
  const startedAt = performance.now();

  const pushed = subject.push.expect(prepared, past => load.allow(past + WINDOW_MESSAGES));
  load.allow(WINDOW_MESSAGES);
  const complete = (async () => {
    const [outcome] = await Promise.all([done, pushed]);
    await subject.stored(prepared.messages);
    return outcome;
  })();
  const outcome = await withTimeout(complete, ROUND_TIMEOUT_MS);
  const seconds = (performance.now() - startedAt) / 1000;

  const cpuAfter = cpuByGroup(subject);
  const machine = machineCpuMs() - machineBefore;
  const harness = process.cpuUsage(harnessBefore);
  const stored = await subject.count(prepared);
  const missing = prepared.messages - (outcome?.acknowledged ?? 0);
  const wanted = {
    messages: prepared.messages,
    readings: prepared.messages * METRICS_PER_MESSAGE,
    duplicates: 0,
  };
  if (outcome === null || missing !== 0 || JSON.stringify(stored) !== JSON.stringify(wanted)) {
    throw new Error(
      [
        `${subject.name}: the round is not whole${outcome === null ? ` after ${ROUND_TIMEOUT_MS / 1000} s` : ''}`,
        `published ${prepared.messages}, acknowledged ${outcome?.acknowledged ?? '?'}`,
        `stored ${JSON.stringify(stored)}, wanted ${JSON.stringify(wanted)}`,
        subject.output().slice(-4000),
      ].join('\n'),
    );
  }
  return {
    messages: prepared.messages,
    readings: wanted.readings,
    seconds,
    payloadBytes: prepared.payloadBytes,
    cpuMs: Object.fromEntries(
      Object.entries(cpuAfter).map(([group, after]) => [group, after - cpuBefore[group]!]),
    ),
    generatorCpuMs: outcome.cpuMs,
    harnessCpuMs: (harness.user + harness.system) / 1000,
    machineCpuMs: machine,
    updates: subject.push.updates - updatesBefore,
  };
}

function cpuByGroup(subject: Subject): Record<string, number> {
  return Object.fromEntries(
    Object.entries(subject.processes).map(([group, pids]) => [
      group,
      pids.reduce((sum, pid) => sum + cpuMs(pid), 0),
    ]),
  );
}

/** Null when it takes longer. */
async function withTimeout<T>(work: Promise<T>, timeoutMs: number): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>(resolve => {
    timer = setTimeout(() => resolve(null), timeoutMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
