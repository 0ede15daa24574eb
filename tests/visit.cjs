// What tests/test_page.py asks of a browser: visits the page in several ways, and prints what was
// seen as JSON.
//
//     node tests/visit.cjs '{"page": a URL, "browser": a program, "goals": [...], "shots": null}'

const { chromium } = require("playwright-core");

const given = JSON.parse(process.argv[2]);
const seen = { asked: [], console: [], drags: [], said: {}, wide: {} };
const PATIENCE = 120_000; // milliseconds: others may use the processor

async function visit(browser, options, address = "", before = null) {
  const context = await browser.newContext({ reducedMotion: "reduce", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("request", (request) => seen.asked.push(request.url().split("#")[0]));
  page.on("console", (message) => seen.console.push(message.text()));
  page.on("pageerror", (error) => seen.console.push(error.message));
  if (before) await page.addInitScript(before);
  await page.goto(given.page + address, { timeout: PATIENCE });
  return page;
}

const ready = (page, ids) => page.waitForFunction((names) => {
  const isReady = (name) => document.getElementById(name).getAttribute("aria-busy") === "false";
  return names.every(isReady);
}, ids, { polling: 100 });

const ALL = ["adapt", "starts", "gradients"];
const said = (page) => page.textContent("#message");

const goalOf = (page) => page.evaluate(() =>
  ["x", "y"].map((id) => Number(document.getElementById(id).value)));

// Where on the screen a point of the plane is.
const place = (page, [x, y]) => page.evaluate(([x, y]) => {
  const plot = document.getElementById("box");
  const box = plot.getBoundingClientRect();
  const half = plot.viewBox.baseVal.width / 2;
  const along = (at, start, size) => start + ((at / half + 1) * size) / 2;
  return [along(x, box.left, box.width), along(-y, box.top, box.height)];
}, [x, y]);

async function drag(page, goal) {
  await page.mouse.move(...await place(page, await goalOf(page)));
  await page.mouse.down();
  await page.mouse.move(...await place(page, [0, 0]));
  await page.mouse.move(...await place(page, goal));
  await page.mouse.up();
}

async function read(page) {
  return page.evaluate(() => {
    const number = (element, name) => Number(element.dataset[name]);
    return {
      goal: ["x", "y"].map((id) => Number(document.getElementById(id).value)),
      seed: Number(document.getElementById("seed").value),
      returns: [...document.querySelectorAll("#returns td[data-value]")].map((td) =>
        number(td, "value")),
    };
  });
}

async function type(page, id, text) {
  await page.fill(`#${id}`, text);
  await page.press(`#${id}`, "Enter");
}

async function atADesk(browser) {
  const page = await visit(browser, { viewport: { width: 1600, height: 1000 } }, "#seed=5");
  await ready(page, ALL);
  seen.wide[1600] = await page.evaluate(() => document.documentElement.scrollWidth);
  for (const goal of given.goals) {
    await drag(page, goal);
    await ready(page, ["adapt"]);
    seen.drags.push(await read(page));
  }
  seen.speed = await page.evaluate(() => {
    const speed = document.getElementById("speed");
    return [speed.textContent, Number(speed.dataset.milliseconds)];
  });
  await drag(page, [0.7, 0]);
  seen.said["dragged outside"] = await said(page);
  await type(page, "seed", "seven");
  seen.said.seed = await said(page);
  await type(page, "seed", String(2 ** 32));
  seen.said["seed beyond"] = await said(page);
  await type(page, "x", "0.9");
  seen.said.goal = await said(page);
  await type(page, "x", "0.3");
  seen.said["right again"] = await said(page);
  await type(page, "y", "-0.35");
  await page.focus(".grip");
  await page.keyboard.press("ArrowUp");
  seen.by_key = await goalOf(page);
  await page.context().close();
}

// All settings in the address, and another address while the page is open.
async function byAddress(browser) {
  const all = "#seed=9&goal=0.1,-0.2&family=pointmass&angle=60&K=8&alpha=0.1";
  const page = await visit(browser, { viewport: { width: 1000, height: 800 } }, all);
  await ready(page, ALL);
  const settings = () => page.evaluate(() => {
    const values = ["seed", "x", "y", "angle", "K", "alpha"].map((id) =>
      Number(document.getElementById(id).value));
    return [...values, document.querySelector("[name=family]:checked").value];
  });
  seen.settings = [await settings()];
  await page.evaluate(() => (location.hash = "#seed=10&angle=-60"));
  await page.waitForFunction(() => document.getElementById("seed").value === "10");
  await ready(page, ALL);
  seen.settings.push(await settings());
  await page.click("#one"); // after three steps: from the start again
  await ready(page, ["adapt"]);
  seen.after_one = (await read(page)).returns.length;
  await page.context().close();
}

async function onAPhone(browser) {
  const phone = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true };
  const page = await visit(browser, phone, "#seed=x&K=999&angle=60");
  seen.said.address = await said(page);
  await ready(page, ALL);
  seen.wide[360] = await page.evaluate(() => document.documentElement.scrollWidth);
  const at = async (goal) => {
    const [x, y] = await place(page, goal);
    return [{ x, y }];
  };
  await page.locator("#box").scrollIntoViewIfNeeded();
  const finger = await page.context().newCDPSession(page);
  const touch = (type, touchPoints) =>
    finger.send("Input.dispatchTouchEvent", { type, touchPoints });
  await touch("touchStart", await at(await goalOf(page)));
  await touch("touchMove", await at([0, 0]));
  await touch("touchMove", await at([-0.2, 0.2]));
  await touch("touchEnd", []);
  seen.by_finger = await goalOf(page);
  await page.context().close();
}

async function inOldBrowsers(browser) {
  const old = await visit(browser, {}, "", () => delete Object.hasOwn);
  seen.said["old browser"] = await said(old);
  await old.context().close();
  const none = await visit(browser, { javaScriptEnabled: false });
  seen.said["no script"] = await said(none);
  await none.context().close();
}

// To be looked at. The first is the picture in the README.
async function shoot(browser, directory) {
  const first = await visit(browser, { viewport: { width: 1400, height: 900 } });
  await ready(first, ALL);
  await first.locator("#adapt").screenshot({ path: `${directory}/adapt.png` });
  await first.context().close();
  for (const width of [360, 1600]) {
    for (const colorScheme of ["light", "dark"]) {
      const viewport = { width, height: width === 360 ? 740 : 1000 };
      const page = await visit(browser, { viewport, colorScheme });
      await ready(page, ALL);
      const path = `${directory}/adapt-${width}-${colorScheme}`;
      await page.screenshot({ path: `${path}.png` });
      await page.screenshot({ path: `${path}-all.png`, fullPage: true });
      await page.context().close();
    }
  }
}

async function main() {
  const options = { executablePath: given.browser, args: ["--no-sandbox"], timeout: PATIENCE };
  const browser = await chromium.launch(options);
  await inOldBrowsers(browser);
  await atADesk(browser);
  await byAddress(browser);
  await onAPhone(browser);
  if (given.shots) await shoot(browser, given.shots);
  await browser.close();
  console.log(JSON.stringify(seen));
}

main();
