export type BannerFacts = {
  url: string
  metricsUrl: string
  workerMetricsUrl: string
  temporalUiUrl: string | null
  masterKey: string
  model: string
  isDemo: boolean
  logDir: string
}

const row = (name: string, value: string): string => `  ${name.padEnd(14)}${value}`

/** Takes the first id of a JSON reply, with what every machine has. */
const FIRST_ID = `grep -o '"id":"[^"]*"' | head -n 1 | cut -d '"' -f 4`

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

/** Three commands that can be pasted in their order: make an agent, open a session, say something in it. */
const firstCommands = (facts: Pick<BannerFacts, 'url' | 'masterKey' | 'model' | 'isDemo'>): string[] => {
  const base = `${facts.url}/api/v1/managed_agents`
  const headers = `-H ${quoted(`Authorization: Bearer ${facts.masterKey}`)} -H 'content-type: application/json'`
  const post = (path: string, body: object): string =>
    `curl -sS ${base}/${path} ${headers} -d ${quoted(JSON.stringify(body))}`
  const text = facts.isDemo ? '$ git log --oneline' : 'What is in this repository? Answer in one sentence.'
  return [
    `AGENT=$(${post('agents', { name: 'first', model: facts.model })} | ${FIRST_ID})`,
    `SESSION=$(${post('agents/$AGENT/session', { title: 'hello' })} | ${FIRST_ID})`,
    post('sessions/$SESSION/message', { text }),
  ]
}

export const banner = (facts: BannerFacts): string =>
  [
    '',
    row('API', facts.url),
    row('OpenAPI', `${facts.url}/openapi.json`),
    row('Metrics', `${facts.metricsUrl} (API), ${facts.workerMetricsUrl} (worker)`),
    ...(facts.temporalUiUrl === null ? [] : [row('Temporal UI', facts.temporalUiUrl)]),
    row('Key', facts.masterKey),
    row('Logs', facts.logDir),
    ...(facts.isDemo
      ? [
          row('Model', 'the built-in DEMO, not a real model: it repeats what you say, and runs'),
          row('', 'a line that starts with "$ " in the sandbox. For real ones, name your gateway:'),
          row('', 'LITELLM_API_BASE=https://… LITELLM_API_KEY=sk-… npm start'),
        ]
      : []),
    '',
    '  Your first agent, session and message; paste one after the other:',
    '',
    ...firstCommands(facts).flatMap((line) => [line, '']),
    '  The first session starts cold, in some seconds. From then on the agent has warm sandboxes: paste the second line again.',
    '  Ctrl-C ends everything; the next start continues where this one was.',
    '',
  ].join('\n')
