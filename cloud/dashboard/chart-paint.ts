/**
 * What the chart draws itself, below and above uPlot's line: gaps, shaded stretches, the band of what was thinned, limits.
 * A shade is told by its pattern, not by its colour alone; `style.css` has the same patterns for the legend.
 */
import type uPlot from 'uplot';
import type { Span } from './chart-series.ts';
import { inside, spansOfKind, summaryRuns } from './chart-shades.ts';
import { SHADE_KINDS, type Shade, type ShadeKind, type Summary } from './history-model.ts';

const COLOURS = ['accent', 'muted', 'line', 'gap', 'critical', 'warning', 'panel', 'ink'] as const;
export type Colours = Readonly<Record<(typeof COLOURS)[number], string>>;

/** Those of the page as it looks now: they change with the scheme. */
export function readColours(): Colours {
  const style = getComputedStyle(document.documentElement);
  const entries = COLOURS.map(name => [name, style.getPropertyValue(`--${name}`).trim()]);
  return Object.fromEntries(entries) as Colours;
}

const TILE_PX = 8;
type Look = { readonly colour: keyof Colours; readonly trace: (ctx: CanvasRenderingContext2D) => void };

const LOOKS: Readonly<Record<ShadeKind, Look>> = {
  late: { colour: 'muted', trace: ctx => hatch(ctx, 'up', 1) },
  thinned: {
    colour: 'accent',
    trace: ctx => {
      ctx.arc(2, 2, 0.9, 0, 7);
      ctx.moveTo(6.9, 6);
      ctx.arc(6, 6, 0.9, 0, 7);
      ctx.fill();
    },
  },
  missing: { colour: 'warning', trace: ctx => hatch(ctx, 'down', 2.4) },
  lost: {
    colour: 'critical',
    trace: ctx => {
      hatch(ctx, 'up', 1);
      hatch(ctx, 'down', 1);
    },
  },
};

/** Diagonals that meet those of the next tile. */
function hatch(ctx: CanvasRenderingContext2D, direction: 'up' | 'down', width: number): void {
  ctx.lineWidth = width;
  for (const shift of [-TILE_PX, 0, TILE_PX]) {
    const [from, to] = direction === 'up' ? [TILE_PX, 0] : [0, TILE_PX];
    ctx.moveTo(shift - 1, from + (from > to ? 1 : -1));
    ctx.lineTo(shift + TILE_PX + 1, to + (from > to ? -1 : 1));
  }
  ctx.stroke();
}

export type Patterns = Readonly<Record<ShadeKind, CanvasPattern | string>>;

export function makePatterns(colours: Colours): Patterns {
  const entries = SHADE_KINDS.map(kind => {
    const { colour, trace } = LOOKS[kind];
    const tile = document.createElement('canvas');
    tile.width = TILE_PX * devicePixelRatio;
    tile.height = tile.width;
    const ctx = tile.getContext('2d');
    if (ctx === null) return [kind, colours[colour]];
    ctx.scale(tile.width / TILE_PX, tile.width / TILE_PX);
    ctx.strokeStyle = ctx.fillStyle = colours[colour];
    ctx.beginPath();
    trace(ctx);
    return [kind, ctx.createPattern(tile, 'repeat') ?? colours[colour]];
  });
  return Object.fromEntries(entries) as Patterns;
}

/** Canvas pixels of a stretch of time, cut to the plot; `null` when nothing of it is in view. */
function extentOf(plot: uPlot, [from, to]: Span): readonly [left: number, width: number] | null {
  const { left: min, width } = plot.bbox;
  const left = Math.max(min, plot.valToPos(from / 1_000, 'x', true));
  const right = Math.min(min + width, plot.valToPos(to / 1_000, 'x', true));
  return right > left ? [left, right - left] : null;
}

export function paintGaps(plot: uPlot, gaps: readonly Span[], colours: Colours): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.fillStyle = colours.gap;
  for (const gap of gaps) {
    const extent = extentOf(plot, gap);
    if (extent !== null) ctx.fillRect(extent[0], bbox.top, extent[1], bbox.height);
  }
  ctx.restore();
}

/** A stretch is at least this wide: one lost minute in 90 days must be seen. */
const SHADE_PX_MIN = 2;

export function paintShades(
  plot: uPlot,
  shades: readonly Shade[],
  colours: Colours,
  patterns: Patterns,
): void {
  const { ctx, bbox } = plot;
  const widthMin = SHADE_PX_MIN * devicePixelRatio;
  ctx.save();
  for (const kind of SHADE_KINDS) {
    for (const span of spansOfKind(shades, kind, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY)) {
      const extent = extentOf(plot, span);
      if (extent === null) continue;
      const [left, width] = [extent[0], Math.max(widthMin, extent[1])];
      ctx.globalAlpha = 0.1;
      ctx.fillStyle = colours[LOOKS[kind].colour];
      ctx.fillRect(left, bbox.top, width, bbox.height);
      ctx.globalAlpha = kind === 'lost' ? 0.45 : 0.25;
      ctx.fillStyle = patterns[kind];
      ctx.fillRect(left, bbox.top, width, bbox.height);
    }
  }
  ctx.restore();
}

/** In one line, or in as many as a narrower gap asks for. */
const STILL_AT_SITE = [['still at the site'], ['still at', 'the site'], ['still', 'at the', 'site']] as const;

/** Says in the gap itself that its readings are not gone, where there is room for the words. */
export function paintGapWords(
  plot: uPlot,
  gaps: readonly Span[],
  shades: readonly Shade[],
  colours: Colours,
  font: string,
): void {
  const { ctx, bbox } = plot;
  const missing = spansOfKind(shades, 'missing', Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY);
  ctx.save();
  ctx.font = font;
  ctx.textAlign = 'center';
  ctx.textBaseline = 'middle';
  const [lineHeight, room] = [16 * devicePixelRatio, 5 * devicePixelRatio];
  for (const span of inside(gaps, missing)) {
    const extent = extentOf(plot, span);
    if (extent === null) continue;
    const widthOf = (lines: readonly string[]): number =>
      Math.max(...lines.map(line => ctx.measureText(line).width)) + 2 * room;
    const lines = STILL_AT_SITE.find(each => widthOf(each) <= extent[1]);
    if (lines === undefined) continue;
    const [middle, width, top] = [extent[0] + extent[1] / 2, widthOf(lines), bbox.top + 2 * room];
    ctx.fillStyle = colours.panel;
    ctx.fillRect(middle - width / 2, top, width, lines.length * lineHeight + room);
    ctx.fillStyle = colours.ink;
    for (const [index, line] of lines.entries()) {
      ctx.fillText(line, middle, top + (index + 0.5) * lineHeight + room / 2);
    }
  }
  ctx.restore();
}

/** Per interval a box from the lowest to the highest; the means joined where intervals follow one another. */
export function paintSummaries(plot: uPlot, summaries: readonly Summary[], colours: Colours): void {
  const { ctx, bbox } = plot;
  const yOf = (value: number): number => plot.valToPos(value, 'y', true);
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.fillStyle = ctx.strokeStyle = colours.accent;
  ctx.globalAlpha = 0.28;
  for (const { from, to, min, max } of summaries) {
    const extent = extentOf(plot, [from, to]);
    if (extent === null) continue;
    const height = Math.max(devicePixelRatio, yOf(min) - yOf(max));
    ctx.fillRect(extent[0], yOf(max), Math.max(devicePixelRatio, extent[1]), height);
  }
  ctx.globalAlpha = 1;
  ctx.lineWidth = 1.5 * devicePixelRatio;
  for (const run of summaryRuns(summaries)) {
    ctx.beginPath();
    for (const [index, { from, to, mean }] of run.entries()) {
      const [left, right] = [from, to].map(at => plot.valToPos(at / 1_000, 'x', true)) as [number, number];
      if (index === 0) ctx.moveTo(left, yOf(mean));
      ctx.lineTo((left + right) / 2, yOf(mean));
      if (index === run.length - 1) ctx.lineTo(right, yOf(mean));
    }
    ctx.stroke();
  }
  ctx.restore();
}

export function paintLimits(plot: uPlot, limits: readonly number[], colours: Colours): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = colours.critical;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
  for (const limit of limits) {
    const y = plot.valToPos(limit, 'y', true);
    if (y < bbox.top || y > bbox.top + bbox.height) continue;
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
  }
  ctx.restore();
}
