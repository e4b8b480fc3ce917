/** The one family of errors. A message says what came, what was expected and what to do next. */

/** Base of all errors that a user can act on. */
export class EdgetuneError extends Error {
  /**
   * @param {string} message
   * @param {ErrorOptions} [options]
   */
  constructor(message, options) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** Texts or arguments that cannot be used. */
export class DataError extends EdgetuneError {}

/** A task file that is damaged, unknown, or made for another backbone. */
export class TaskError extends EdgetuneError {}

/** A bundle that is damaged, incomplete, or of another format version. */
export class BundleError extends EdgetuneError {}

/** One text that the tokenizer or the backbone fails on; others can be answered. */
export class TextError extends BundleError {}

/** A device, or a number of threads, that is not there. */
export class DeviceError extends EdgetuneError {}

/** A file that does not exist. */
export class MissingFileError extends BundleError {}

/** An address that does not answer; what was fetched before is used instead, if it was kept. */
export class NetworkError extends BundleError {}
