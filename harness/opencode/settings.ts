import path from 'node:path'
import type { HarnessContext } from '../../supervisor/harness.ts'
import { modelLimitOf } from '../../supervisor/model-limit.ts'

export const PROVIDER = 'litellm'

/** opencode's configuration. Nobody sits in front of it: what it may do is allowed, and it has no way to ask. */
const configuration = ({ gateway, env }: HarnessContext): object => ({
  share: 'disabled',
  autoupdate: false,
  snapshot: false,
  lsp: false,
  formatter: false,
  enabled_providers: [PROVIDER],
  model: `${PROVIDER}/${gateway.model}`,
  small_model: `${PROVIDER}/${gateway.model}`,
  provider: {
    [PROVIDER]: {
      npm: '@ai-sdk/openai-compatible',
      name: 'LiteLLM',
      // How long a model may think is the gateway's business; by itself opencode gives up after five minutes of silence.
      options: { baseURL: gateway.url, apiKey: gateway.key, timeout: false, headerTimeout: false, chunkTimeout: false },
      models: {
        [gateway.model]: {
          name: gateway.model,
          tool_call: true,
          attachment: true,
          modalities: { input: ['text', 'image', 'pdf'], output: ['text'] },
          limit: modelLimitOf(env),
        },
      },
    },
  },
  permission: {
    edit: 'allow',
    bash: 'allow',
    webfetch: 'allow',
    external_directory: 'allow',
    doom_loop: 'allow',
    question: 'deny',
  },
})

/** The whole environment of the opencode process: what it was given, homes of its own, and nothing that would make it go out by itself. */
export const processEnv = (context: HarnessContext, password: string): Record<string, string> => ({
  SHELL: '/bin/bash',
  ...context.env,
  HOME: context.home,
  XDG_DATA_HOME: path.join(context.home, '.local', 'share'),
  XDG_CONFIG_HOME: path.join(context.home, '.config'),
  XDG_CACHE_HOME: path.join(context.home, '.cache'),
  XDG_STATE_HOME: path.join(context.home, '.local', 'state'),
  OPENCODE_CONFIG_CONTENT: JSON.stringify(configuration(context)),
  // Without a password its port is open to every process of the machine.
  OPENCODE_SERVER_PASSWORD: password,
  OPENCODE_DISABLE_AUTOUPDATE: '1',
  OPENCODE_DISABLE_MODELS_FETCH: '1',
  OPENCODE_DISABLE_LSP_DOWNLOAD: '1',
  OPENCODE_DISABLE_DEFAULT_PLUGINS: '1',
  OPENCODE_DISABLE_CLAUDE_CODE: '1',
})
