// Opens a page in Debian's Chromium and says what is there; for tests that look at pages.
//
// Reads {url, width, height, wait, evaluate, screenshot} as JSON from standard input: `wait`
// and `evaluate` are expressions, the first is tried until it is true. Prints {result, errors}:
// what `evaluate` gives, and the page's errors.
const { chromium } = require("playwright-core");

async function main(task) {
  const browser = await chromium.launch({
    executablePath: task.chromium,
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
  });
  try {
    const viewport = { width: task.width, height: task.height };
    const page = await browser.newPage({ viewport });
    const errors = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (said) => said.type() === "error" && errors.push(said.text()));
    await page.goto(task.url);
    let missing = null;
    await page
      .waitForFunction(task.wait, null, { timeout: 90000 })
      .catch((error) => (missing = String(error)));
    await page.waitForTimeout(1500); // what is drawn after the data has come
    const result = await page.evaluate(task.evaluate);
    if (task.screenshot) await page.screenshot({ path: task.screenshot });
    console.log(JSON.stringify({ result, errors, missing }));
  } finally {
    await browser.close();
  }
}

let text = "";
process.stdin.on("data", (part) => (text += part));
process.stdin.on("end", () => main(JSON.parse(text)));
