// Runs to report: committed ones, and ones made of their rows. Each is made into a report by the program itself.
import {execFileSync} from 'node:child_process';
import {mkdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';

const {LONGHAUL, REFERENCE} = process.env;
const work = join(import.meta.dirname ?? new URL('.', import.meta.url).pathname, 'reports');

/** Rows of CSV text by their columns. */
export function parse(text) {
  const rows = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\n|$)/g)) {
    rows.at(-1).push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
    if (end === '\n') rows.push([]);
    if (end === '') break;
  }
  const [heads, ...lines] = rows.filter(row => row.length > 1);
  return lines.map(line => Object.fromEntries(heads.map((head, at) => [head, line[at]])));
}

function csv(rows) {
  const field = value => /[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
  return [Object.keys(rows[0]), ...rows.map(row => Object.values(row))].map(line => line.map(field).join(',') + '\n').join('');
}

export const quick = () => parse(readFileSync(join(REFERENCE, 'quick/results.csv'), 'utf8'));

/** A row that ended otherwise. */
export const ended = (row, status, reason) => ({
  ...row, status, reason, samples: '', correct: '', value: '', value_sd: '', value_low: '', value_high: '', interval: '', nll: '',
  state_bytes: '', seconds: '', tokens_per_second: '',
});

/** The report of a run's folder. */
export function report(name, run) {
  const out = join(work, name, 'report');
  rmSync(out, {recursive: true, force: true});
  mkdirSync(out, {recursive: true});
  execFileSync(LONGHAUL, ['report', run, '--out', out], {stdio: ['ignore', 'ignore', 'inherit']});
  const file = name => readFileSync(join(out, name), 'utf8');
  return {page: join(out, 'report.html'), cells: parse(file('cells.csv')), summary: parse(file('summary.csv')), file};
}

/** The report of a run with these rows. */
export function made(name, rows) {
  const run = join(work, name, 'run');
  mkdirSync(run, {recursive: true});
  writeFileSync(join(run, 'results.csv'), csv(rows));
  return report(name, run);
}

/** Rows of so many cells: architectures on tasks at ten lengths, with ten seeds. */
export function many(count) {
  const whole = quick().filter(row => row.label === '' && row.split === 'test')[0];
  const rows = [];
  for (let at = 0; at < count; at++) {
    const [length, seed, architecture, task] = [at % 10, Math.floor(at / 10) % 10, Math.floor(at / 100) % 20, Math.floor(at / 2000)];
    const samples = 512, correct = (at * 7919) % 513, value = correct / samples;
    rows.push({
      ...whole, unit: `u${(task * 20 + architecture) * 10 + seed}`, architecture: `model-${architecture}`, task_options: `set=${task},version=2`,
      seed: String(seed), eval_length: String(32 << length), samples: String(samples), correct: String(correct), value: String(value),
      value_low: String(Math.max(0, value - .04 * Math.random())), value_high: String(Math.min(1, value + .04)),
      seconds: String(Math.random()), tokens_per_second: String(1e5 * Math.random()), peak_memory_bytes: String(58834944 + 4096 * at),
    });
  }
  return rows;
}
