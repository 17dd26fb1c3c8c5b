// Runs Azurite's blob service on a free port of loopback, with signatures checked, until standard input ends: `serve`. Prints
// one line of JSON: the port, and the account's key. Or downloads what is in the container: `download PORT PREFIX FOLDER`.

const crypto = require("crypto");
const fs = require("fs");
const http = require("http");
const path = require("path");

const account = "lvault", container = "backups", version = "2023-11-03";
const key = Buffer.from("the key of the account of the tests").toString("base64");

// One signed request. Azure signs a method, a few headers, and the path and query.
function ask(port, method, name, query) {
  const headers = { "x-ms-date": new Date().toUTCString(), "x-ms-version": version };
  const signed = Object.keys(headers).sort().map((header) => `${header}:${headers[header]}\n`).join("");
  const at = `/${account}/${container}${name.split("/").map(encodeURIComponent).join("/")}`;
  const queries = Object.keys(query).sort().map((part) => `\n${part}:${query[part]}`).join("");
  const text = `${method}${"\n".repeat(12)}${signed}/${account}${at}${queries}`;
  const signature = crypto.createHmac("sha256", Buffer.from(key, "base64")).update(text, "utf8").digest("base64");
  headers.authorization = `SharedKey ${account}:${signature}`;
  headers["content-length"] = "0";
  return new Promise((resolve, reject) => {
    const search = new URLSearchParams(query).toString();
    const request = http.request({ host: "127.0.0.1", port, method, path: `${at}?${search}`, headers }, (answer) => {
      const parts = [];
      answer.on("data", (part) => parts.push(part));
      answer.on("error", reject);
      answer.on("end", () => {
        const body = Buffer.concat(parts);
        answer.statusCode < 300 ? resolve(body) : reject(new Error(`${method} ${at}: ${answer.statusCode} ${body}`));
      });
    });
    request.on("error", reject);
    request.end();
  });
}

async function download(port, prefix, folder) {
  const listed = await ask(port, "GET", "", { restype: "container", comp: "list", prefix });
  if (/<NextMarker>[^<]/.test(listed)) throw new Error("more blobs than one list holds");
  for (const [, name] of listed.toString().matchAll(/<Name>([^<]*)<\/Name>/g)) {
    const to = path.join(folder, name.slice(prefix.length));
    fs.mkdirSync(path.dirname(to), { recursive: true });
    fs.writeFileSync(to, await ask(port, "GET", `/${name}`, {}));
  }
}

function serve() {
  process.stdin.resume();
  process.stdin.on("end", () => process.exit(0));
  process.env.AZURITE_ACCOUNTS = `${account}:${key}`;
  process.argv = [process.argv[0], "azurite-blob", "--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence",
    "--silent", "--disableTelemetry"];
  // What Azurite says of itself, and where it listens.
  console.log = (line) => {
    const listens = /successfully listens on http:\/\/127\.0\.0\.1:(\d+)/.exec(line);
    if (!listens) return;
    const port = Number(listens[1]);
    ask(port, "PUT", "", { restype: "container" }).then(
      () => process.stdout.write(JSON.stringify({ port, key }) + "\n"),
      (error) => { console.error(error); process.exit(1); });
  };
  require("azurite/dist/src/blob/main.js");
}

const [mode, ...rest] = process.argv.slice(1);
if (mode === "serve") serve();
else download(...rest).catch((error) => { console.error(error); process.exit(1); });
