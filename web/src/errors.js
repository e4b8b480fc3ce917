/** edgetune's errors. A message says what came, what was expected and what to do next. */

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

/** Texts or arguments that are not valid. */
export class DataError extends EdgetuneError {}

/** A task file that is damaged, unknown, or made for another backbone. */
export class TaskError extends EdgetuneError {}

/** A bundle that is damaged, incomplete, or of another format version. */
export class BundleError extends EdgetuneError {}

/** The tokenizer or the backbone fails on one text; other texts can still be answered. */
export class TextError extends BundleError {}

/** A device, or a number of threads, that is not available. */
export class DeviceError extends EdgetuneError {}

/** A file that does not exist. */
export class MissingFileError extends BundleError {}

/** An address that does not answer. A cached copy is used instead, if there is one. */
export class NetworkError extends BundleError {}
