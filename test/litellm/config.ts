/** Models of the proxy; a name that begins so is passed on with the rest of it. */
export const MODELS = {
  /** Costs what `PRICE` says. */
  priced: 'scripted-model',
  /** The gateway knows no price, so it reports no cost. */
  unpriced: 'unpriced-model',
  /** Nobody listens behind it. */
  unreachable: 'unreachable-model',
  claude: 'claude-sonnet-4-5',
  gpt: 'gpt-5-codex',
} as const

/** US dollars a token. */
export const PRICE = { input: 0.000_003, cached: 0.000_000_3, output: 0.000_015 } as const

/** A model may think for hours; LiteLLM gives up after ten minutes by itself. */
const REQUEST_TIMEOUT_S = 7_200

/** Name of the MCP server of the proxy, which whoever wants it starts. */
export const MCP_SERVER = 'parrot'

type Upstream = { port: number; mcpPort: number }

/**
 * The proxy's configuration, as JSON, which is YAML. Keys are in its environment: the file and the process list have none.
 *
 * `hosted_vllm/` because with `openai/` names of Claude would be sent to the upstream's `/v1/responses`. Without `disable_cooldowns` one 404 of a model makes
 * a 429 of everything behind it.
 */
export const configuration = ({ port, mcpPort }: Upstream): string => {
  const entry = (name: string, more: object = {}): object => ({
    model_name: name,
    litellm_params: {
      model: `hosted_vllm/${name}`,
      api_base: `http://127.0.0.1:${port}/v1`,
      api_key: 'os.environ/UPSTREAM_KEY',
      use_chat_completions_api: true,
      ...more,
    },
  })
  const price = {
    input_cost_per_token: PRICE.input,
    cache_read_input_token_cost: PRICE.cached,
    output_cost_per_token: PRICE.output,
  }
  return JSON.stringify({
    model_list: [
      entry(MODELS.priced, price),
      entry('scripted*', price),
      entry(MODELS.unpriced),
      entry('unpriced*'),
      entry('claude-*', price),
      entry('gpt-*', price),
      entry(MODELS.unreachable, { api_base: 'http://127.0.0.1:1/v1' }),
    ],
    mcp_servers: {
      [MCP_SERVER]: {
        url: `http://127.0.0.1:${mcpPort}/mcp`,
        transport: 'http',
        auth_type: 'bearer_token',
        auth_value: 'os.environ/MCP_KEY',
      },
    },
    litellm_settings: {
      drop_params: true,
      use_chat_completions_url_for_anthropic_messages: true,
      // Else only answers that are no streams tell what they cost.
      include_cost_in_streaming_usage: true,
      request_timeout: REQUEST_TIMEOUT_S,
      telemetry: false,
    },
    router_settings: { disable_cooldowns: true, num_retries: 0, timeout: REQUEST_TIMEOUT_S },
    general_settings: { master_key: 'os.environ/LITELLM_MASTER_KEY' },
  })
}
