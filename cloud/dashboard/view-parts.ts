/** Small pieces that several views are made of. */
import { html } from 'htm/preact';
import type { ComponentChildren, VNode } from 'preact';
import type { Problem } from './api.ts';
import { formatAge, formatTime, formatValue, freshness } from './format.ts';
import type { Polled } from './hooks.ts';
import type { MetricValue } from './model.ts';

/** The age of a value: the lamp's shape, its colour and the words all say whether it is fresh. */
export function Age({ at, now }: { at: number | null; now: number }): VNode {
  return html`<span class="age" data-fresh=${freshness(at, now)}>
    <span class="lamp" aria-hidden="true"></span>
    ${
      at === null
        ? 'never'
        : html`<time datetime=${isoOf(at)} title=${formatTime(at, now)}>${formatAge(at, now)}</time>`
    }
  </span>`;
}

/** Dates end at ±8.64e15 ms; a device may claim any time. */
const isoOf = (at: number): string => (Math.abs(at) <= 8.64e15 ? new Date(at).toISOString() : '');

export function Value({ value }: { value: MetricValue }): VNode {
  const text = formatValue(value);
  return html`<span class="value" data-kind=${value === null ? 'none' : typeof value}
    title=${text.length > 12 || typeof value === 'number' ? String(value) : undefined}>${text}</span>`;
}

export function Severity({ severity }: { severity: string }): VNode {
  return html`<span class="severity" data-severity=${severity}>${severity}</span>`;
}

type NoticeProps = { title: string; kind?: 'plain' | 'failed' | 'busy'; children?: ComponentChildren };

/** Stands where content would be: empty, loading or failed. */
export function Notice({ title, kind = 'plain', children }: NoticeProps): VNode {
  return html`<div class="notice" data-kind=${kind} role=${kind === 'failed' ? 'alert' : 'status'}>
    <p class="notice-title">${title}</p>
    ${children}
  </div>`;
}

export function ProblemNotice({ title, problem }: { title: string; problem: Problem }): VNode {
  return html`<${Notice} title=${title} kind="failed">
    <p>${problem.title}${problem.detail === '' ? '' : `: ${problem.detail}`}. Trying again.</p>
  <//>`;
}

/** Beside figures that could not be refreshed: what they are worth now. */
export function OldFigures({ polled, now }: { polled: Polled<unknown>; now: number }): VNode | null {
  if (polled.problem === null || polled.at === null) return null;
  return html`<p class="old" role="alert">
    Not up to date: ${polled.problem.title}. These figures are from ${formatAge(polled.at, now)}.
  </p>`;
}
