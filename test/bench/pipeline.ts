/**
 * `pipeline`: the standard fleet all the way from MQTT to stored and pushed, through Holdfast and through the
 * straightforward service, round by round in turns on the same machine; then the bytes on the wire.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Benchmark } from './benchmark.ts';
import { startHoldfast } from './holdfast-subject.ts';
import { type LoadGenerator, startLoadGenerator } from './load-generator.ts';
import { type Round, runRound } from './round.ts';
import { startStraightforward } from './straightforward-subject.ts';
import type { Subject } from './subject.ts';
import { median, rounded, table } from './tables.ts';
import { measureWire } from './wire.ts';

const ROUNDS = 5;
const MESSAGES = 200_000;
/** Its rate decides, not its count: enough for 5 seconds or more. */
const PEER_SHARE = 1 / 33;
const WARM_UP = { messages: 30_000, peerMessages: 2000 };
const WIRE_MESSAGES = 100_000;

export const pipeline: Benchmark = {
  does: 'MQTT to stored and pushed, against a straightforward service; bytes on the wire',
  async run({
    directory,
    binaries,
    rounds = ROUNDS,
    messages = MESSAGES,
    profileDirectory,
    releases,
    report,
  }) {
    const peerMessages = Math.ceil((messages * PEER_SHARE) / 1000) * 1000;
    const measured: { holdfast: Round; peer: Round }[] = [];
    const holdfast = await startHoldfast({
      directory: join(directory, 'holdfast'),
      binaries,
      ...profiling(profileDirectory),
    });
    releases.add(() => holdfast.close());
    const peer = await startStraightforward({
      directory: join(directory, 'straightforward'),
      binaries,
      redis: holdfast.stack.redis,
      postgres: holdfast.stack.postgres,
    });
    releases.add(() => peer.close());
    report('everything runs');

    const load = async (subject: Subject, total: number): Promise<LoadGenerator> => {
      // The fleet's time ends about now: one second for every 1,000 messages, and one between rounds.
      const startMs = Date.now() - total - (rounds + 2) * 1000;
      const generator = await startLoadGenerator({ brokers: subject.brokers, startMs });
      releases.add(() => generator.stop());
      return generator;
    };
    const loads = {
      holdfast: await load(holdfast, WARM_UP.messages + rounds * messages),
      peer: await load(peer, WARM_UP.peerMessages + rounds * peerMessages),
    };
    await runRound(holdfast, loads.holdfast, WARM_UP.messages);
    await runRound(peer, loads.peer, WARM_UP.peerMessages);
    report('warm');
    const checkpoint = () => holdfast.pool.query('checkpoint');
    for (let round = 1; round <= rounds; round++) {
      await checkpoint();
      const ours = await runRound(holdfast, loads.holdfast, messages);
      await checkpoint();
      const theirs = await runRound(peer, loads.peer, peerMessages);
      measured.push({ holdfast: ours, peer: theirs });
      report(
        `round ${round} of ${rounds}: Holdfast ${rate(ours)} messages/s, straightforward ${rate(theirs)}`,
      );
    }
    await releases.run();
    const wire = await measureWire({
      directory: join(directory, 'wire'),
      binaries,
      releases,
      messages: Math.min(messages, WIRE_MESSAGES),
    });

    const ours = measured.map(round => round.holdfast);
    const theirs = measured.map(round => round.peer);
    const ratio = median(measured.map(round => perSecond(round.holdfast) / perSecond(round.peer)));
    return {
      tables: [
        ratesTable(ours, theirs, ratio),
        cpuTable('Holdfast', ours),
        cpuTable('straightforward', theirs),
        table([
          [
            'bytes per reading',
            'wire',
            'batches alone',
            'up',
            'down',
            'gzip',
            'raw JSON',
            'messages per batch',
          ],
          [
            `${wire.messages} messages`,
            rounded(wire.wire_bytes_per_reading, 3),
            rounded(wire.batch_bytes_per_reading, 3),
            rounded(wire.wire_up_bytes_per_reading, 3),
            rounded(wire.wire_down_bytes_per_reading, 3),
            rounded(wire.wire_gzip_bytes_per_reading, 3),
            rounded(wire.raw_bytes_per_reading, 2),
            rounded(wire.batch_messages_mean, 1),
          ],
        ]),
      ],
      figures: {
        ...summary(ours),
        ratio_readings: rounded(ratio, 2),
        wire_bytes_per_reading: rounded(wire.wire_bytes_per_reading, 3),
        wire_gzip_bytes_per_reading: rounded(wire.wire_gzip_bytes_per_reading, 3),
        raw_bytes_per_reading: rounded(wire.raw_bytes_per_reading, 3),
        wire_batch_messages: rounded(wire.batch_messages_mean, 1),
        peer: { name: 'straightforward', ...summary(theirs) },
        missing: 0,
        duplicates: 0,
        rounds,
      },
    };
  },
};

const perSecond = (round: Round) => round.readings / round.seconds;
const rate = (round: Round) => Math.round(round.messages / round.seconds);
const cpuOf = (round: Round) => Object.values(round.cpuMs).reduce((sum, ms) => sum + ms, 0);
const cpuPerReading = (round: Round) => (cpuOf(round) * 1000) / round.readings;

function summary(rounds: readonly Round[]) {
  return {
    msgs_per_s: Math.round(median(rounds.map(rate))),
    readings_per_s: Math.round(median(rounds.map(perSecond))),
    cpu_us_per_reading: rounded(median(rounds.map(cpuPerReading)), 2),
    cpu_us_per_reading_by_group: Object.fromEntries(
      Object.keys(rounds[0]!.cpuMs).map(group => [
        group,
        rounded(median(rounds.map(round => (round.cpuMs[group]! * 1000) / round.readings)), 3),
      ]),
    ),
    messages_per_round: rounds[0]!.messages,
  };
}

function ratesTable(ours: readonly Round[], theirs: readonly Round[], ratio: number): string {
  const row = (name: string, rounds: readonly Round[]) => [
    name,
    rounds[0]!.messages,
    rounded(median(rounds.map(round => round.seconds)), 2),
    Math.round(median(rounds.map(rate))),
    Math.round(median(rounds.map(perSecond))),
    rounded(median(rounds.map(cpuPerReading)), 2),
    `${Math.round(Math.min(...rounds.map(rate)))} … ${Math.round(Math.max(...rounds.map(rate)))}`,
  ];
  return table([
    ['median of rounds', 'messages', 's', 'messages/s', 'readings/s', 'CPU µs/reading', 'messages/s, range'],
    row('Holdfast', ours),
    row('straightforward', theirs),
    ['ratio', '', '', '', rounded(ratio, 1), '', ''],
  ]);
}

/** Where the CPU goes: per reading, and in percent of one core while the round ran. */
function cpuTable(name: string, rounds: readonly Round[]): string {
  const row = (label: string, cpu: (round: Round) => number) => [
    label,
    rounded(median(rounds.map(round => (cpu(round) * 1000) / round.readings)), 3),
    Math.round(median(rounds.map(round => cpu(round) / round.seconds / 10))),
  ];
  return table([
    [`CPU of ${name}`, 'µs/reading', '% of a core'],
    ...Object.keys(rounds[0]!.cpuMs).map(group => row(group, round => round.cpuMs[group]!)),
    row('all of it', cpuOf),
    row('(load generator)', round => round.generatorCpuMs),
    row('(harness and dashboard)', round => round.harnessCpuMs),
    row(
      '(others and the kernel)',
      round => round.machineCpuMs - cpuOf(round) - round.generatorCpuMs - round.harnessCpuMs,
    ),
  ]);
}

/** Has the gateways and the cloud node write a CPU profile there when they stop. */
function profiling(directory: string | undefined) {
  if (directory === undefined) return {};
  const env = (part: string) => {
    mkdirSync(join(directory, part), { recursive: true });
    return { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${join(directory, part)}` };
  };
  return { gatewayEnv: env('gateways'), cloudEnv: env('cloud') };
}
