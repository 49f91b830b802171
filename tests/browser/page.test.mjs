// A report's page in Chromium: what it shows is what the files beside it say, it can be used by hand, by keys and on a
// phone, and it asks nothing of a network.
import assert from 'node:assert/strict';
import {readFileSync, statSync} from 'node:fs';
import {after, before, test} from 'node:test';
import {createRequire} from 'node:module';
import {pathToFileURL} from 'node:url';
import {join} from 'node:path';
import {chromium} from 'playwright-core';
import {ended, made, many, parse, quick, report} from './reports.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const {REFERENCE, CHROMIUM} = process.env;
const HOSTILE = 'a_b<script>window.hit=1</script><img src=x onerror="window.hit=1">&amp;</script><!--%\'"\u001b[31m\n</title>end';
let browser;
before(async () => { browser = await chromium.launch({executablePath: CHROMIUM}); });
after(() => browser?.close());

/** Opens a page, does something with it, and holds it to no errors and no requests. */
async function open(made, use, {width = 1280, dark = false, bypassCSP = false} = {}) {
  const context = await browser.newContext({viewport: {width, height: 900}, colorScheme: dark ? 'dark' : 'light', bypassCSP});
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const url = pathToFileURL(made.page).href, wrong = [];
  page.on('console', message => message.type() === 'error' && wrong.push(message.text()));
  page.on('pageerror', error => wrong.push(String(error)));
  page.on('request', request => request.url() !== url && !request.url().startsWith('data:') && wrong.push(request.url()));
  try {
    await page.goto(url);
    await page.waitForSelector('html[data-ready]');
    await use(page);
    assert.deepEqual(wrong, []);
  } finally {
    await context.close();
  }
}

/** All sections filled, as for printing. */
const fill = page => page.evaluate(() => dispatchEvent(new Event('beforeprint')));
const section = (page, title) => page.locator('section.task').filter({has: page.getByRole('heading', {name: title, exact: true})});

let plain;
before(() => { plain = report('quick', join(REFERENCE, 'quick')); });

test('tables sort by mouse and by keys', () => open(plain, async page => {
  const task = section(page, 'needle');
  await task.scrollIntoViewIfNeeded();
  const names = () => task.locator('tbody th').allInnerTexts();
  const shown = plain.summary.filter(row => row.task === 'needle' && row.label === '' && row.split === 'test' && row.eval_length === '2048');
  const ascending = [...shown].sort((one, other) => one.value - other.value).map(row => row.architecture);
  const unsorted = await names();
  const head = task.getByRole('columnheader', {name: '2K'});
  await head.getByRole('button').click();
  assert.equal(await head.getAttribute('aria-sort'), 'ascending');
  assert.deepEqual(await names(), ascending);
  await head.getByRole('button').focus();
  await page.keyboard.press('Enter');
  assert.equal(await head.getAttribute('aria-sort'), 'descending');
  assert.deepEqual(await names(), ascending.reverse());
  await page.keyboard.press('Enter');
  assert.deepEqual(await names(), unsorted);
  // All heads are reached by keys.
  await page.keyboard.press('Tab');
  assert.match(await page.evaluate(() => document.activeElement.textContent), /^2x/);
}));

test('records filter, and a page of them is in the document', () => open(plain, async page => {
  const records = page.locator('#records');
  await records.getByLabel('Filter').fill('LSTM needle test');
  const wanted = plain.cells.filter(row => row.architecture === 'lstm' && row.task === 'needle' && row.split === 'test').length
    + parse(plain.file('breakdowns.csv')).filter(row => row.architecture === 'lstm' && row.task === 'needle').length;
  assert.equal(await records.locator('[aria-live]').innerText(), `1 to 50 of ${wanted} rows`);
  await records.getByLabel('Filter').fill('LSTM needle test 2048 cells');
  assert.equal(await records.locator('tbody tr').count(), 1);
  await records.getByLabel('Filter').fill('no such thing');
  assert.equal(await records.locator('tbody tr').count(), 0);
  await records.getByLabel('Filter').fill('');
  assert.equal(await records.locator('tbody tr').count(), 50);
  const first = await records.locator('tbody tr').first().innerText();
  await records.getByRole('button', {name: 'Next'}).click();
  assert.notEqual(await records.locator('tbody tr').first().innerText(), first);
}));

test('a figure reads off what the summary says, and its curves toggle', () => open(plain, async page => {
  const task = section(page, 'needle');
  await task.scrollIntoViewIfNeeded();
  const chart = task.locator('.chart');
  await chart.locator('canvas').waitFor();
  const series = name => task.locator('.series button').filter({has: page.locator('.name').getByText(name, {exact: true})});
  const hover = async length => {
    const [x, y] = await chart.evaluate((chart, length) => {
      const over = chart.querySelector('.u-over').getBoundingClientRect();
      return [over.left + chart.plot.valToPos(Math.log2(length), 'x'), over.top + over.height / 2];
    }, length);
    await page.mouse.move(x, y);
  };
  for (const length of [128, 512, 2048]) {
    await hover(length);
    for (const row of plain.summary.filter(row => row.task === 'needle' && row.label === '' && row.split === 'test' && Number(row.eval_length) === length)) {
      const reading = await series(row.architecture).locator('.reading').innerText();
      const [value, low, high] = reading.match(/[\d.]+/g).map(Number);
      for (const [read, field] of [[value, 'value'], [low, 'value_low'], [high, 'value_high']]) {
        assert.ok(Math.abs(read - 100 * row[field]) <= .0501, `${row.architecture} at ${length}: ${reading}, ${field} is ${row[field]}`);
      }
    }
  }
  // Beside a lower bound stands the sign, as in the figures.
  assert.doesNotMatch(await page.locator('#tasks').innerText(), />=/);
  await page.mouse.move(0, 0);
  const pixels = () => chart.locator('canvas').evaluate(canvas => {
    const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    // The colour of lstm.
    for (let at = 0; at < data.length; at += 4) count += data[at + 3] > 250 && Math.hypot(data[at] - COLOUR[0], data[at + 1] - COLOUR[1], data[at + 2] - COLOUR[2]) < 12;
    return count;
  });
  await page.evaluate(() => {
    const curve = JSON.parse(document.getElementById('data').textContent).tasks.find(task => task.task === 'needle').curves.find(curve => curve.name === 'lstm');
    window.COLOUR = [1, 3, 5].map(at => parseInt(curve.colour.slice(at, at + 2), 16));
  });
  const button = series('lstm');
  const drawn = await pixels();
  assert.ok(drawn > 200, `${drawn} pixels of the curve`);
  await button.click();
  await page.mouse.move(0, 0);
  await page.evaluate(() => new Promise(requestAnimationFrame));
  assert.equal(await button.getAttribute('aria-pressed'), 'false');
  const left = await pixels();
  assert.ok(left < drawn / 20, `${left} of ${drawn} pixels are left`);
  await button.focus();
  await page.keyboard.press('Space');
  assert.equal(await button.getAttribute('aria-pressed'), 'true');
  await button.blur();
  await page.evaluate(() => new Promise(requestAnimationFrame));
  assert.ok(await pixels() > drawn / 2);
  // By keys: from the first length on.
  await chart.focus();
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('ArrowRight');
  assert.match(await task.locator('.unseen').innerText(), /^length 256: transformer 99\.6 \[97\.8, 99\.9\];/);
  // Another measure of the same points.
  await task.getByLabel('Show').selectOption({label: 'tokens read a second'});
  await hover(512);
  assert.match(await series('lstm').locator('.reading').innerText(), /^\d+$/);
}));

test('curves that coincide are told apart', () => {
  // All architectures right everywhere: one value at every length. Drawn in one place the last would hide all others.
  const rows = quick().map(row => row.task === 'needle' && row.value
    ? {...row, correct: row.samples, value: '1', value_low: '.99', value_high: '1'} : row);
  return open(made('coincident', rows), async page => {
    const chart = section(page, 'needle').locator('.chart');
    await chart.scrollIntoViewIfNeeded();
    await chart.locator('canvas').waitFor();
    const seen = await chart.evaluate(chart => {
      const canvas = chart.querySelector('canvas'), {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      const task = JSON.parse(document.getElementById('data').textContent).tasks.find(task => task.task === 'needle');
      return task.curves.map(({name, colour}) => {
        const [red, green, blue] = [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));
        let count = 0;
        for (let at = 0; at < data.length; at += 4) count += data[at + 3] > 250 && Math.hypot(data[at] - red, data[at + 1] - green, data[at + 2] - blue) < 12;
        return [name, count];
      });
    });
    assert.equal(seen.length, 5);
    for (const [name, count] of seen) assert.ok(count > 40, `${count} pixels of ${name} are seen`);
  });
});

test('a number opens the rows that it is made of', () => open(plain, async page => {
  const task = section(page, 'mqar');
  await task.scrollIntoViewIfNeeded();
  await task.getByRole('row', {name: /^lstm/}).locator('.value').last().click();
  const row = plain.cells.find(row => row.task === 'mqar' && row.architecture === 'lstm' && row.split === 'test' && row.eval_length === '512');
  const dialog = page.getByRole('dialog');
  const cells = await dialog.locator('tbody tr').first().locator('td').allInnerTexts();
  assert.equal(await dialog.locator('tbody tr').count(), 1);
  assert.equal(cells[0], `cells.csv row ${plain.cells.indexOf(row) + 1}`);
  for (const value of [row.architecture, row.task, row.task_options, row.eval_length, row.seed, row.samples, row.correct, row.unit, join(REFERENCE, 'quick')]) {
    assert.ok(cells.includes(value), `${value} in ${cells}`);
  }
  assert.ok(cells.map(Number).includes(Number(row.value)));
  await page.keyboard.press('Escape');
  assert.equal(await dialog.count(), 0);
}));

test('names and ends of any kind appear as text', () => {
  const rows = quick().map((row, at) => {
    const name = row.architecture === 'lstm' ? {architecture: HOSTILE, plugin: HOSTILE, options: `${HOSTILE}=1`} : {};
    if (row.task === 'mqar' && row.architecture === 'mamba') return row.label ? null : {...ended(row, 'crashed', `${HOSTILE} SIGSEGV`)};
    if (row.task === 'mqar' && row.architecture === 'lstm' && row.eval_length === '512') return {...ended(row, 'not-run', 'no time'), ...name};
    return {...row, ...name};
  });
  return open(made('hostile', rows.filter(Boolean)), async page => {
    await fill(page);
    assert.equal(await page.evaluate(() => window.hit), undefined);
    assert.equal(await page.locator('img').count(), 0);
    assert.equal(await page.title(), 'run: Longhaul report');
    const shown = HOSTILE.replace('\u001b', '\ufffd');
    const texts = await page.locator('section.task').first().locator('tbody th').allTextContents();
    assert.ok(texts.some(text => text.startsWith(shown)), texts.join(' | '));
    const mqar = section(page, 'mqar');
    const mamba = await mqar.getByRole('row', {name: /^mamba crashed/}).locator('.value').allInnerTexts();
    assert.deepEqual(mamba, Array(5).fill('crashed'));
    assert.equal(await mqar.getByRole('button', {name: 'not run', exact: true}).count(), 1);
    // From the counts to the rows, with the reason.
    await page.locator('#statuses').getByRole('button', {name: /crashed/}).click();
    assert.equal(await page.locator('#records tbody tr').count(), 5);
    assert.ok((await page.locator('#records tbody tr').first().textContent()).includes(`${shown} SIGSEGV`));
    assert.match(await page.locator('#notes').innerText(), /run\.toml cannot be read/);
  });
});

test('one architecture alone, and nothing measured at all, make a page that says so', async () => {
  const alone = quick().filter(row => row.architecture === 'lstm');
  await open(made('alone', alone), async page => {
    await fill(page);
    assert.equal(await page.locator('section.task .best').count(), 0);
    assert.equal(await section(page, 'needle').locator('.series button').count(), 1);
  });
  const failed = quick().filter(row => row.label === '').map(row => ended(row, 'failed', 'as asked'));
  await open(made('failed', failed), async page => {
    await fill(page);
    assert.equal(await page.locator('canvas').count(), 0);
    assert.equal(await page.getByText('Nothing was measured here').count(), 3);
    await page.locator('.value').first().click();
    assert.match(await page.getByRole('dialog').innerText(), /as asked/);
  });
});

/** The needle at five fixed depths, the deeper the worse. */
function depths() {
  const whole = quick().filter(row => row.label === '' && row.task === 'needle' && row.split === 'test');
  return [0, .25, .5, .75, 1].flatMap((depth, place) => whole.map((row, at) => {
    const correct = Math.round(row.samples * (1 - (place * 5 + at % 5) / 25)), value = correct / row.samples;
    return {...row, unit: `${row.unit}-${depth}`, task_options: row.task_options.replace('depth=grid', `depth=${depth}`),
      correct: String(correct), value: String(value), value_low: String(value * .9), value_high: String(value)};
  }));
}

test('fixed depths make a map of each model, whose cells open their rows', () => open(made('depths', depths()), async page => {
  await fill(page);
  const maps = section(page, 'needle by depth');
  assert.equal(await maps.locator('table').count(), 5);
  const row = maps.getByRole('region', {name: 'Map of lstm'}).getByRole('row', {name: /^50 %/});
  assert.equal(await row.locator('.value').count(), 5);
  await row.locator('.value').first().click();
  assert.match(await page.getByRole('dialog').innerText(), /lstm on needle at 128 tokens[^]*depth=0\.5/);
}));

test('text stands out, and parts are named for those who do not see', async () => {
  const losses = report('books', join(REFERENCE, 'books')), fixed = made('depths', depths());
  for (const [made, dark, width] of [[plain, false, 1280], [plain, true, 360], [losses, false, 360], [losses, true, 1280], [fixed, false, 360], [fixed, true, 1280]]) {
    await open(made, async page => {
      await fill(page);
      await page.addScriptTag({content: axe});
      const check = () => page.evaluate(() => axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']}));
      const said = ({violations}) => violations.map(({id, nodes}) => `${id}: ${nodes.slice(0, 3).map(node => `${node.html} ${node.failureSummary}`).join('\n')}`);
      const found = await check();
      assert.deepEqual(said(found), []);
      assert.ok(found.passes.some(({id, nodes}) => id === 'color-contrast' && nodes.length > 10), 'contrast was looked at');
      await page.locator('.value').first().click();
      assert.deepEqual(said(await check()), []);
    }, {dark, width, bypassCSP: true}); // a script is put in
  }
});

test('a phone and a desk show the page without scrolling sideways', async () => {
  for (const width of [360, 1280]) {
    for (const name of ['quick', 'hostile', 'books', 'depths']) {
      const page = join(plain.page, '../../..', name, 'report/report.html');
      await open({page}, async page => {
        await fill(page);
        const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
        assert.ok(wide <= room, `${name} is ${wide} wide at ${room}`);
      }, {width});
    }
  }
});

test('a report of 100,000 rows is small and opens within a second', () => {
  const large = made('large', many(100_000));
  assert.ok(statSync(large.page).size < 10e6, `${statSync(large.page).size} bytes`);
  return open(large, async page => {
    const session = await page.context().newCDPSession(page);
    // Of the page's own thread, as other programs may have the processor meanwhile.
    await session.send('Performance.enable', {timeDomain: 'threadTicks'});
    await page.reload();
    await page.waitForSelector('html[data-ready]');
    const {metrics} = await session.send('Performance.getMetrics');
    const seconds = metrics.find(({name}) => name === 'TaskDuration').value;
    console.log(`${statSync(large.page).size} bytes, ${seconds.toFixed(2)} s of the page's thread`);
    assert.ok(seconds < 1, `${seconds} s`);
    assert.ok(await page.evaluate(() => document.querySelectorAll('*').length) < 10_000);
    await page.locator('#records').getByLabel('Filter').fill('model-7 set=3,');
    assert.match(await page.locator('#records [aria-live]').innerText(), /1 to 50 of 100 rows/);
  });
});
