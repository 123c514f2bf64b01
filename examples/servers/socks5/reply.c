/* SPDX-License-Identifier: MIT
 *
 * The errors of a connect as replies of SOCKS 5. The RFC names the replies without saying what leads to them;
 * where it leaves room, this is what other servers do: a name that nobody knows is a host that cannot be
 * reached, a host that does not answer in time is "TTL expired", and what this machine's own rules forbid is
 * "not allowed". An error that is not listed is the server's own affair.
 */
#include "reply.h"

#include "aloop.h"

socks5_reply_t socks5_reply_for(int64_t error) {
  switch (error) {
  case ALOOP_EACCES:
  case ALOOP_EPERM:
    return SOCKS5_NOT_ALLOWED;
  case ALOOP_ENETUNREACH:
  case ALOOP_EADDRNOTAVAIL: /* this machine has no address in that network */
    return SOCKS5_NETWORK_UNREACHABLE;
  case ALOOP_EHOSTUNREACH:
  case ALOOP_EAI_ADDRFAMILY:
  case ALOOP_EAI_AGAIN:
  case ALOOP_EAI_FAIL:
  case ALOOP_EAI_NODATA:
  case ALOOP_EAI_NONAME:
    return SOCKS5_HOST_UNREACHABLE;
  case ALOOP_ECONNREFUSED:
    return SOCKS5_REFUSED;
  case ALOOP_ETIMEDOUT:
    return SOCKS5_EXPIRED;
  case ALOOP_EAFNOSUPPORT:
    return SOCKS5_NO_SUCH_ADDRESS_TYPE;
  default:
    return SOCKS5_FAILURE;
  }
}
