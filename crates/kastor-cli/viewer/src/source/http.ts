// The source behind a server: `kastor view`. Every request carries the token of this run.

import type {
  Diff, List, Metrics, Overview, PathColumns, Points, ScopeDetail, TimelineColumns, TreeColumns,
} from "./contract";
import { SourceError, type ListQuery, type PointsQuery, type Source, type TimelineQuery } from "./source";

type Parameters = Record<string, string | number>;

export class HttpSource implements Source {
  readonly hasPerfetto = true;

  constructor(private readonly token: string) {}

  overview(): Promise<Overview> {
    return this.json("overview", {});
  }

  paths(capture: number): Promise<PathColumns> {
    return this.json("paths", { capture });
  }

  timeline(query: TimelineQuery, signal?: AbortSignal): Promise<TimelineColumns> {
    return this.json("timeline", whole({ ...query }), signal);
  }

  tree(capture: number, filter: string): Promise<TreeColumns> {
    return this.json("tree", { capture, filter });
  }

  diff(filter: string): Promise<Diff> {
    return this.json("diff", { filter });
  }

  metrics(capture: number): Promise<Metrics> {
    return this.json("metrics", { capture });
  }

  points(query: PointsQuery, signal?: AbortSignal): Promise<Points> {
    return this.json("points", whole({ ...query }), signal);
  }

  scope(capture: number, ref: string): Promise<ScopeDetail> {
    return this.json("scope", { capture, ref });
  }

  list(query: ListQuery): Promise<List> {
    return this.json("list", whole({ ...query }));
  }

  async perfetto(capture: number, filter: string): Promise<ArrayBuffer> {
    const response = await this.ask("perfetto", { capture, filter });
    return response.arrayBuffer();
  }

  async changes(since: number, signal: AbortSignal): Promise<number> {
    const answer = await this.json<{ version: number }>("changes", { since }, signal);
    return answer.version;
  }

  private async json<Answer>(what: string, parameters: Parameters, signal?: AbortSignal): Promise<Answer> {
    const response = await this.ask(what, parameters, signal);
    return (await response.json()) as Answer;
  }

  private async ask(what: string, parameters: Parameters, signal?: AbortSignal): Promise<Response> {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== "") query.set(name, String(value));
    }
    let response: Response;
    try {
      response = await fetch(`/api/${what}?${query}`, {
        headers: { Authorization: `Bearer ${this.token}` },
        cache: "no-store",
        ...(signal ? { signal } : {}),
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new SourceError("The program that serves this page does not answer. Start `kastor view` again and open its new address.");
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }
}

/** Times go to the server as whole nanoseconds. */
function whole<Query extends { from: number; to: number }>(query: Query): Parameters {
  return { ...query, from: Math.max(0, Math.floor(query.from)), to: Math.max(0, Math.ceil(query.to)) } as unknown as Parameters;
}

async function refusal(response: Response): Promise<SourceError> {
  if (response.status === 401 || response.status === 403) {
    return new SourceError("This address has no valid token. Open the address that `kastor view` printed, whole.");
  }
  try {
    const answer = (await response.json()) as { error?: unknown; at?: unknown };
    if (typeof answer.error === "string") {
      return new SourceError(answer.error, typeof answer.at === "number" ? answer.at : null);
    }
  } catch {
    // no JSON: the status has to do
  }
  return new SourceError(`The program answered with status ${response.status}.`);
}
