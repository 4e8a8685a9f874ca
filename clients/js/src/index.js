/** A client of the notification gateway. */
export { connect } from "./connect.js";
export { GatewayError } from "./rules.js";
