/** A gateway's state for a person at a terminal. Pure. */
import { attention, type GatewayState } from './state.ts';
import type { StoppedGateway } from './stopped.ts';

const BAR_CELLS = 30;
const TROUBLES_SHOWN = 5;

export function statusAsText(state: GatewayState): string {
  const { report, link, disk } = state;
  const { dataBudget, forecast } = report;
  const wants = attention(state);
  const lines: [string, string][] = [
    [
      'role',
      `${report.role}, for ${duration((state.now - state.startedAt) / 1000)} (process ${state.pid}, ${bytes(state.residentBytes)} of memory)`,
    ],
    ['broker', report.broker.connected ? 'connected' : (report.broker.reason ?? 'not connected')],
    ['link', link.connected ? 'connected' : (link.reason ?? 'no answer from the cloud yet')],
    ...(dataBudget
      ? [
          [
            'budget',
            `${bar(dataBudget.bytesUsed / dataBudget.bytesMax)} ${bytes(dataBudget.bytesUsed)} of ${bytes(dataBudget.bytesMax)}, until ${moment(dataBudget.resetsAt)}`,
          ] satisfies [string, string],
          [
            '',
            `batches every ${duration(link.allowance.gatherMs / 1000)}${link.allowance.backfill ? '' : ', no backlog now'}`,
          ] satisfies [string, string],
        ]
      : []),
    [
      'buffer',
      `${bar(report.bufferBytes / report.bufferBytesMax)} ${bytes(report.bufferBytes)} of ${bytes(report.bufferBytesMax)}`,
    ],
    ['waiting', waitingText(state)],
    [
      'oldest',
      report.oldestUnsettledAt === null ? 'nothing waits' : agoText(state.now, report.oldestUnsettledAt),
    ],
    ['full in', forecast.fullInSeconds === null ? 'not in sight' : duration(forecast.fullInSeconds)],
    ['drained in', drainedText(state)],
    [
      'taken',
      `${count(report.messages)} messages since start${report.dropped > 0 ? `, ${count(report.dropped)} dropped` : ''}`,
    ],
    [
      'disk',
      `${disk.fsyncMs.p99.toFixed(1)} ms a group, ${count(disk.writeErrors)} write errors, ${count(disk.logs)} logs`,
    ],
    ...(report.thinnedMessages > 0 || report.lostMessages > 0
      ? [
          ['thinned, lost', `${count(report.thinnedMessages)}, ${count(report.lostMessages)}`] satisfies [
            string,
            string,
          ],
        ]
      : []),
  ];
  const troubles = state.troubles.slice(-TROUBLES_SHOWN);
  return [
    `${state.site}/${state.gateway}: ${wants.length === 0 ? 'all is well' : 'wants attention'}`,
    ...wants.map(sentence => `  ! ${sentence}`),
    ...lines.map(([name, text]) => `  ${name.padEnd(14)}${text}`),
    ...(troubles.length > 0 ? ['  last warnings and errors'] : []),
    ...troubles.map(({ at, level, text }) => `    ${moment(at)}  ${level.padEnd(5)} ${text}`),
    '',
  ].join('\n');
}

export function stoppedAsText(directory: string, stopped: StoppedGateway): string {
  const { logs, bytes: total, unsettledMessages, dataBudgetBytesUsed, problems } = stopped;
  return [
    `No gateway runs on ${directory}. What is on the disk:`,
    ...(logs === 0
      ? ['  no log']
      : [
          `  ${'logs'.padEnd(14)}${logs}, ${bytes(total)}`,
          `  ${'waiting'.padEnd(14)}${count(unsettledMessages)} messages, as far as was noted`,
        ]),
    ...(dataBudgetBytesUsed === null
      ? []
      : [`  ${'budget'.padEnd(14)}${bytes(dataBudgetBytesUsed)} used of its last period`]),
    ...problems.map(problem => `  ! ${problem}`),
    '',
  ].join('\n');
}

function waitingText({ report, link }: GatewayState): string {
  const inStream = Math.max(0, report.unsettledMessages - link.waitingMessages);
  return `${count(link.waitingMessages)} messages, about ${bytes(report.wireBytesLeft)} on the wire; ${count(inStream)} sent and not settled yet`;
}

function drainedText({ report, link }: GatewayState): string {
  const { drainedInSeconds } = report.forecast;
  if (drainedInSeconds === 0) return 'nothing is held up';
  if (drainedInSeconds !== null) return duration(drainedInSeconds);
  return link.connected ? 'not in sight' : 'not in sight without a link';
}

function bar(share: number): string {
  const cells = Math.min(BAR_CELLS, Math.max(0, Math.round(share * BAR_CELLS)));
  return `[${'#'.repeat(cells)}${'.'.repeat(BAR_CELLS - cells)}] ${Math.round(share * 100)} %`;
}

const count = (value: number) => Math.round(value).toLocaleString('en');

function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  let scaled = value;
  let unit = 0;
  while (scaled >= 1024 && unit < units.length - 1) {
    scaled /= 1024;
    unit++;
  }
  return `${scaled >= 100 || unit === 0 ? Math.round(scaled) : scaled.toFixed(1)} ${units[unit]}`;
}

/** In the two largest units that matter. */
function duration(seconds: number): string {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  const units: [string, number][] = [
    ['d', 86_400],
    ['h', 3600],
    ['min', 60],
    ['s', 1],
  ];
  let left = Math.round(seconds);
  const parts: string[] = [];
  for (const [name, size] of units) {
    if (left >= size && parts.length < 2) parts.push(`${Math.floor(left / size)} ${name}`);
    left %= size;
  }
  return parts.join(' ');
}

/** Local time; Swedish writes it as ISO does. */
const moment = (at: number) => new Date(at).toLocaleString('sv');

const agoText = (now: number, at: number) =>
  `${moment(at)}, ${now > at ? `${duration((now - at) / 1000)} ago` : 'just now'}`;
