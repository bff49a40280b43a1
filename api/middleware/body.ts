import { bodyParser } from '@koa/bodyparser'
import { AppError } from '../../domain/errors.ts'
import { bodyMaxBytes } from '../../domain/limits.ts'

/** JSON whatever the content type says (curl's `-d` says form); absent means `{}`. */
export const body = bodyParser({
  enableTypes: ['json'],
  detectJSON: () => true,
  jsonLimit: bodyMaxBytes,
  jsonStrict: false,
  onError(error, ctx) {
    if ('type' in error && error.type === 'entity.too.large') {
      // The rest is read and thrown away, so that a client still sending gets to read the answer.
      ctx.req.resume()
      ctx.set('Connection', 'close')
      throw new AppError('too_large', `the body is larger than ${bodyMaxBytes / 1_048_576} MiB`)
    }
    throw new AppError('bad_request', `the body is not valid JSON: ${error.message}`)
  },
})
