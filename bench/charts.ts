/** The plots of docs/benchmarks.md, as SVG: ratios beside their bars, and lines. */
import type { Curve, Distribution } from './harness.js';
import { readable } from './harness.js';
import type { JudgedComparison } from './report.js';

const WIDTH = 960;
const LEFT = 56;
const COLORS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9'];
const HELD = '#009e73';
const MISSED = '#d55e00';
const SHOWN = '#0072b2';

export function escapeXml(text: string): string {
  return text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
}

function text(x: number, y: number, label: string, anchor = 'middle', color = '#333'): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}" fill="${color}">${escapeXml(label)}</text>`;
}

function line(x1: number, y1: number, x2: number, y2: number, style: string): string {
  const [a, b, c, d] = [x1, y1, x2, y2].map((value) => value.toFixed(1));
  return `<line x1="${a}" y1="${b}" x2="${c}" y2="${d}" ${style}/>`;
}

function page(height: number, title: string, body: readonly string[]): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12">`,
    `<title>${escapeXml(title)}</title>`,
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    text(WIDTH / 2, 22, title),
    ...body,
    '</svg>',
    '',
  ].join('\n');
}

/** How many times better than the other: above 1 is better, whether figures are rates or times. */
export function advantage({ ratio, bar, atMost, unit }: JudgedComparison): { ratio: number; bar?: number } {
  const inverse = atMost === true || isCost(unit);
  const of = (value: number): number => (inverse ? 1 / value : value);
  return { ratio: of(ratio), ...(bar === undefined ? {} : { bar: of(bar) }) };
}

/** Figures of which less is better. */
function isCost(unit: string): boolean {
  return ['µs', 'ms', 's', 'MB'].includes(unit);
}

const ROW_HEIGHT = 22;
const LABEL_WIDTH = 500;
const FIGURE_WIDTH = 60;
const DECADE = 10;

/** One line per comparison on a logarithmic axis; the bar is a tick, the ratio a dot. */
export function ratioChart(title: string, comparisons: readonly JudgedComparison[]): string {
  const top = 40;
  const rows = comparisons.map((comparison) => ({ comparison, ...advantage(comparison) }));
  const values = rows.flatMap(({ ratio, bar }) => (bar === undefined ? [ratio] : [ratio, bar]));
  const low = DECADE ** Math.floor(Math.log10(Math.min(0.5, ...values)));
  const high = DECADE ** Math.ceil(Math.log10(Math.max(2, ...values)));
  const right = WIDTH - FIGURE_WIDTH;
  const x = (value: number): number =>
    LABEL_WIDTH + ((Math.log10(value) - Math.log10(low)) / Math.log10(high / low)) * (right - LABEL_WIDTH);
  const bottom = top + rows.length * ROW_HEIGHT;
  const body: string[] = [];
  for (let decade = low; decade <= high * 1.001; decade *= DECADE) {
    body.push(line(x(decade), top, x(decade), bottom, 'stroke="#ddd"'));
    body.push(text(x(decade), bottom + 18, `${Number(decade.toPrecision(1))} x`));
  }
  body.push(line(x(1), top, x(1), bottom, 'stroke="#333"'));
  for (const [i, { comparison, ratio, bar }] of rows.entries()) {
    const y = top + (i + 0.5) * ROW_HEIGHT;
    const color = comparison.held === undefined ? SHOWN : comparison.held ? HELD : MISSED;
    body.push(text(LABEL_WIDTH - 10, y + 4, `${comparison.name} — ${comparison.baseline.label}`, 'end'));
    body.push(line(x(1), y, x(ratio), y, `stroke="${color}" stroke-width="3" stroke-opacity="0.5"`));
    if (bar !== undefined) body.push(line(x(bar), y - 8, x(bar), y + 8, 'stroke="#000" stroke-width="2"'));
    body.push(`<circle cx="${x(ratio).toFixed(1)}" cy="${y}" r="5" fill="${color}"/>`);
    body.push(text(WIDTH - 8, y + 4, ratio.toPrecision(3), 'end', color));
  }
  body.push(
    text((LABEL_WIDTH + right) / 2, bottom + 38, 'times better than the other (dot), bar (black tick)'),
  );
  return page(bottom + 50, title, body);
}

interface Line {
  readonly label: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

interface Axes {
  readonly title: string;
  readonly x: string;
  readonly y: string;
  readonly logX: boolean;
  readonly logY?: boolean;
}

const HEIGHT = 400;
const TOP = 40;
const BOTTOM = 52;
const RIGHT = 24;
const STEPS = 5;

function lineChart(
  { title, x: xLabel, y: yLabel, logX, logY = false }: Axes,
  lines: readonly Line[],
): string {
  const left = LEFT + 24;
  const xs = lines.flatMap(({ points }) => points.map(([x]) => x));
  const ys = lines.flatMap(({ points }) => points.map(([, y]) => y));
  const highest = Math.max(...ys);
  const yMax = logY ? DECADE ** Math.ceil(Math.log10(highest)) : niceMax(highest);
  const yMin = logY ? DECADE ** Math.floor(Math.log10(Math.min(...ys))) : 0;
  const scale = (value: number): number => (logX ? Math.log10(value) : value);
  const [xMin, xMax] = [Math.min(...xs), Math.max(...xs)].map(scale) as [number, number];
  const px = (value: number): number =>
    left + ((scale(value) - xMin) / (xMax - xMin || 1)) * (WIDTH - left - RIGHT);
  const height = (value: number): number =>
    logY ? Math.log10(value / yMin) / Math.log10(yMax / yMin) : value / yMax;
  const py = (value: number): number => HEIGHT - BOTTOM - height(value) * (HEIGHT - TOP - BOTTOM);
  const body: string[] = [];
  for (const value of logY ? decades(Math.log10(yMin), Math.log10(yMax)) : evenly(0, yMax)) {
    body.push(line(left, py(value), WIDTH - RIGHT, py(value), 'stroke="#eee"'));
    body.push(text(left - 8, py(value) + 4, readable(value), 'end'));
  }
  for (const value of logX ? decades(xMin, xMax) : evenly(xMin, xMax)) {
    body.push(line(px(value), py(yMin), px(value), py(yMax), 'stroke="#eee"'));
    body.push(text(px(value), py(yMin) + 18, readable(value)));
  }
  body.push(text((left + WIDTH - RIGHT) / 2, HEIGHT - 10, xLabel), text(left, TOP - 10, yLabel));
  for (const [i, { label, points }] of lines.entries()) {
    const color = COLORS[i % COLORS.length]!;
    const path = points.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`).join(' ');
    body.push(`<polyline points="${path}" fill="none" stroke="${color}" stroke-width="2"/>`);
    body.push(
      text(WIDTH - RIGHT - 8, HEIGHT - BOTTOM - 12 - 18 * (lines.length - 1 - i), label, 'end', color),
    );
  }
  return page(HEIGHT, title, body);
}

function niceMax(value: number): number {
  const decade = DECADE ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * decade).find((nice) => nice >= value) ?? value;
}

/** The powers of ten within, by their logarithms. */
function decades(from: number, to: number): number[] {
  const out: number[] = [];
  for (let power = Math.ceil(from); power <= to + 1e-9; power++) out.push(DECADE ** power);
  return out;
}

function evenly(from: number, to: number): number[] {
  return Array.from({ length: STEPS + 1 }, (_, i) => from + ((to - from) * i) / STEPS);
}

export function growthChart(title: string, curves: readonly Curve[]): string {
  // What grows with x is a straight line only if both axes are logarithmic.
  const ys = curves.flatMap(({ points }) => points.map(([, y]) => y));
  const logY = Math.min(...ys) > 0 && Math.max(...ys) >= DECADE * Math.min(...ys);
  return lineChart({ title, x: curves[0]!.x, y: curves[0]!.y, logX: true, logY }, curves);
}

/** The share of samples at or below each value, on a logarithmic axis. */
export function shareChart(title: string, distributions: readonly Distribution[]): string {
  const lines = distributions.map(({ name: label, hundredths }) => ({
    label,
    points: (hundredths ?? []).map((value, share): [number, number] => [value, share]),
  }));
  return lineChart({ title, x: distributions[0]!.unit, y: '% of all', logX: true }, lines);
}
