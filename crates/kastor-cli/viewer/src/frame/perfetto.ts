// "Open in Perfetto": the trace goes to Perfetto's own page by the messages that its documentation names: it is asked
// with PING until it answers PONG, then it gets the bytes.

const ORIGIN = "https://ui.perfetto.dev";
const ASK_EVERY_MS = 100;
const GIVE_UP_AFTER_MS = 30_000;

export async function openInPerfetto(title: string, fileName: string, fetchTrace: () => Promise<ArrayBuffer>): Promise<void> {
  // The window has to be opened while the press of the button is handled, or browsers take it for an advertisement.
  const perfetto = window.open(ORIGIN);
  if (perfetto === null) throw new Error("The browser did not open a window for Perfetto: allow pop-ups for this page.");
  const [trace] = await Promise.all([fetchTrace(), answer(perfetto)]);
  perfetto.postMessage({ perfetto: { buffer: trace, title, fileName } }, ORIGIN, [trace]);
}

function answer(perfetto: Window): Promise<void> {
  return new Promise((resolve, reject) => {
    const started = performance.now();
    const stop = (): void => {
      window.clearInterval(asking);
      window.removeEventListener("message", hear);
    };
    const hear = (event: MessageEvent): void => {
      if (event.origin !== ORIGIN || event.source !== perfetto || event.data !== "PONG") return;
      stop();
      resolve();
    };
    window.addEventListener("message", hear);
    const asking = window.setInterval(() => {
      if (perfetto.closed || performance.now() - started > GIVE_UP_AFTER_MS) {
        stop();
        reject(new Error("Perfetto did not answer. It is a page in the internet: is there a connection?"));
        return;
      }
      perfetto.postMessage("PING", ORIGIN);
    }, ASK_EVERY_MS);
  });
}
