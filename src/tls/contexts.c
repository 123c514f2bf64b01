/* SPDX-License-Identifier: MIT
 *
 * TLS contexts: an engine's context with a count, and the names that lead to other contexts.
 *
 * A context belongs to no loop. It is counted with atomics and its memory is the C library's, because loops in
 * several threads share it. What it was made with never changes; only its list of names does, under a lock
 * that is taken once per handshake that asks for a name, and only where there are names.
 *
 * A name is looked up as it is first, then with its first label replaced by a star, in a list: servers have a
 * handful of names. Case does not matter. Names of the wire are compared as bytes; who wants names of other
 * alphabets writes them as they go over the wire (xn--...).
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/memory.h"
#include "core/report.h"
#include "tls/tls.h"

struct aloop__tls_name {
  aloop__tls_name_t *next;
  aloop_tls_context_t *context; /* a reference */
  char text[];
};

/* ---- Making one ------------------------------------------------------------------------------------------ */

static const char *fault_of_texts(const aloop_tls_options_t *options) {
  if (options->certificate_file != NULL && options->certificate != NULL)
    return "set either options.certificate_file or options.certificate, not both";
  if (options->key_file != NULL && options->key != NULL)
    return "set either options.key_file or options.key, not both";
  if ((options->certificate == NULL) != (options->certificate_size == 0) ||
      (options->key == NULL) != (options->key_size == 0) || (options->ca == NULL) != (options->ca_size == 0))
    return "a text in memory has an address and a size";
  bool certified = options->certificate_file != NULL || options->certificate != NULL;
  if (!certified && (options->key_file != NULL || options->key != NULL))
    return "a key needs its certificate: set options.certificate_file";
  if (!certified && options->role == ALOOP_TLS_SERVER)
    return "a server needs a certificate: set options.certificate_file";
  return NULL;
}

static bool is_version(int version) {
  return version == 0 || version == ALOOP_TLS_1_2 || version == ALOOP_TLS_1_3;
}

static const char *fault_of_alpn(const aloop_tls_options_t *options) {
  enum { LONGEST = 255, MOST = 65535 };
  size_t total = 0;
  if ((options->alpn == NULL) != (options->alpn_count == 0))
    return "options.alpn and options.alpn_count go together";
  for (size_t i = 0; i < options->alpn_count; i++) {
    size_t size = options->alpn[i] != NULL ? strlen(options->alpn[i]) : 0;
    if (size == 0 || size > LONGEST) return "a protocol in options.alpn has 1 to 255 bytes";
    total += size + 1;
  }
  return total > MOST ? "options.alpn is too long" : NULL;
}

static const char *fault_of_rules(const aloop_tls_options_t *options) {
  bool server = options->role == ALOOP_TLS_SERVER;
  if (options->role != ALOOP_TLS_CLIENT && !server)
    return "options.role is ALOOP_TLS_CLIENT or ALOOP_TLS_SERVER";
  if (options->verify < ALOOP_TLS_VERIFY_DEFAULT || options->verify > ALOOP_TLS_VERIFY_REQUIRED)
    return "options.verify is one of ALOOP_TLS_VERIFY_...";
  if (server && options->verify == ALOOP_TLS_VERIFY_CHAIN)
    return "clients have no names: a server's options.verify is ..._OPTIONAL or ..._REQUIRED";
  if (!server && options->verify > ALOOP_TLS_VERIFY_CHAIN)
    return "options.verify ..._OPTIONAL and ..._REQUIRED are for servers";
  if (!is_version(options->min_version) || !is_version(options->max_version))
    return "versions are ALOOP_TLS_1_2, ALOOP_TLS_1_3 or 0";
  if (options->max_version != 0 && options->min_version > options->max_version)
    return "options.min_version lies above options.max_version";
  if (options->ticket_key_size != (options->ticket_key != NULL ? 80u : 0u))
    return "options.ticket_key has 80 bytes";
  if (options->kernel < -1 || options->kernel > 1) return "options.kernel is 0, 1 or -1";
  return fault_of_alpn(options);
}

static void tell(const aloop_tls_options_t *options, const char *text) {
  if (options->message == NULL || options->message_size == 0) return;
  size_t size = strlen(text);
  if (size >= options->message_size) size = options->message_size - 1;
  memcpy(options->message, text, size);
  options->message[size] = '\0';
}

static bool is_complete(const aloop_tls_engine_t *engine) {
  return engine->size >= offsetof(aloop_tls_engine_t, offload) && engine->name != NULL &&
         engine->context_new != NULL && engine->context_free != NULL && engine->session_new != NULL &&
         engine->session_free != NULL && engine->handshake != NULL && engine->read != NULL &&
         engine->write != NULL && engine->shutdown != NULL && engine->pending != NULL &&
         engine->reason != NULL && engine->info != NULL && engine->certificate != NULL &&
         engine->binding != NULL && engine->half_close != NULL;
}

/* What the kernel may do for connections of a context. */
static unsigned kernel_for(const aloop_tls_options_t *options) {
  if (options->kernel < 0) return 0;
  unsigned kernel = aloop__tls_kernel_probe();
  bool always = (kernel & ALOOP__TLS_KERNEL_KEYS) != 0 || (kernel != 0 && options->kernel > 0);
  return kernel | (always ? ALOOP__TLS_KERNEL_ALWAYS : 0u);
}

int aloop_tls_context_new(const aloop_tls_engine_t *engine, const aloop_tls_options_t *options,
                          aloop_tls_context_t **context) {
  aloop_tls_options_t copy;
  if (engine == NULL || !is_complete(engine))
    return aloop__misuse(NULL, ALOOP_EINVAL, "a TLS engine has its size, its name and every function set");
  if (context == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "a TLS context needs a place to go to");
  if (options == NULL || aloop__memory_copy_options(&copy, sizeof copy, options) < 0)
    return aloop__misuse(NULL, ALOOP_EINVAL, "set options.size to sizeof(aloop_tls_options_t)");
  const char *fault = fault_of_rules(&copy);
  if (fault == NULL) fault = fault_of_texts(&copy);
  if (fault != NULL) {
    tell(&copy, fault);
    return aloop__misuse(NULL, ALOOP_EINVAL, fault);
  }
  aloop_tls_context_t *self = calloc(1, sizeof *self);
  if (self == NULL) return ALOOP_ENOMEM;
  self->kernel = kernel_for(&copy);
  if (self->kernel == 0) copy.kernel = -1;
  int rc = engine->context_new(&copy, &self->state);
  if (rc < 0) {
    free(self);
    return rc;
  }
  self->wrapper = &aloop__tls_wrapper;
  self->engine = engine;
  self->role = copy.role;
  self->verify = copy.verify;
  atomic_init(&self->refs, 1);
  pthread_mutex_init(&self->lock, NULL);
  *context = self;
  return 0;
}

/* ---- Counting -------------------------------------------------------------------------------------------- */

aloop_tls_context_t *aloop_tls_context_ref(aloop_tls_context_t *context) {
  if (context == NULL) {
    aloop__misuse(NULL, ALOOP_EINVAL, "the TLS context is NULL");
    return NULL;
  }
  atomic_fetch_add_explicit(&context->refs, 1, memory_order_relaxed);
  return context;
}

void aloop__tls_context_hold(aloop_tls_context_t *context) {
  aloop_tls_context_ref(context);
}

static void drop_names(aloop__tls_name_t *names) {
  while (names != NULL) {
    aloop__tls_name_t *next = names->next;
    aloop_tls_context_unref(names->context);
    free(names);
    names = next;
  }
}

void aloop_tls_context_unref(aloop_tls_context_t *context) {
  if (context == NULL) return;
  if (atomic_fetch_sub_explicit(&context->refs, 1, memory_order_acq_rel) > 1) return;
  drop_names(context->names);
  context->engine->context_free(context->state);
  pthread_mutex_destroy(&context->lock);
  free(context);
}

/* ---- Names ----------------------------------------------------------------------------------------------- */

static aloop__tls_name_t **find(aloop_tls_context_t *context, const char *name) {
  aloop__tls_name_t **at = &context->names;
  while (*at != NULL && strcasecmp((*at)->text, name) != 0) at = &(*at)->next;
  return at;
}

/* "*.example.org" for "www.example.org". */
static aloop__tls_name_t *find_star(aloop_tls_context_t *context, const char *name) {
  const char *rest = strchr(name, '.');
  if (rest == NULL || rest == name) return NULL;
  for (aloop__tls_name_t *at = context->names; at != NULL; at = at->next)
    if (at->text[0] == '*' && strcasecmp(at->text + 1, rest) == 0) return at;
  return NULL;
}

aloop_tls_context_t *aloop__tls_context_for(aloop_tls_context_t *context, const char *name) {
  pthread_mutex_lock(&context->lock);
  aloop__tls_name_t *found = *find(context, name);
  if (found == NULL) found = find_star(context, name);
  aloop_tls_context_t *other = found != NULL ? aloop_tls_context_ref(found->context) : NULL;
  pthread_mutex_unlock(&context->lock);
  return other;
}

static const char *fault_of_name(const aloop_tls_context_t *context, const char *name,
                                 const aloop_tls_context_t *other) {
  enum { LONGEST = 253 };
  if (context == NULL) return "the TLS context is NULL";
  if (name == NULL || name[0] == '\0' || strlen(name) > LONGEST) return "a server's name has 1 to 253 bytes";
  if (strchr(name[0] == '*' ? name + 1 : name, '*') != NULL || (name[0] == '*' && name[1] != '.'))
    return "a star stands for the first label alone: \"*.example.org\"";
  if (context->role != ALOOP_TLS_SERVER) return "names are for contexts of servers";
  if (other == NULL) return NULL;
  if (other == context) return "a context is not one of its own names";
  return other->engine != context->engine || other->role != ALOOP_TLS_SERVER
             ? "the context of a name is a server's, of the same engine"
             : NULL;
}

/* Puts the name in front of the list, in place of an older one. Returns the one taken out, or NULL. */
static aloop__tls_name_t *exchange(aloop_tls_context_t *context, const char *name, aloop__tls_name_t *fresh) {
  pthread_mutex_lock(&context->lock);
  aloop__tls_name_t **at = find(context, name);
  aloop__tls_name_t *old = *at;
  if (old != NULL) *at = old->next;
  if (old != NULL) old->next = NULL;
  if (fresh != NULL) {
    fresh->next = context->names;
    context->names = fresh;
  }
  pthread_mutex_unlock(&context->lock);
  return old;
}

int aloop_tls_context_add_name(aloop_tls_context_t *context, const char *name, aloop_tls_context_t *other) {
  const char *fault = fault_of_name(context, name, other);
  if (fault != NULL) return aloop__misuse(NULL, ALOOP_EINVAL, fault);
  aloop__tls_name_t *fresh = NULL;
  if (other != NULL) {
    size_t size = strlen(name) + 1;
    fresh = malloc(sizeof *fresh + size);
    if (fresh == NULL) return ALOOP_ENOMEM;
    fresh->context = aloop_tls_context_ref(other);
    memcpy(fresh->text, name, size);
  }
  aloop__tls_name_t *old = exchange(context, name, fresh);
  if (old == NULL && other == NULL) return ALOOP_ENOENT;
  drop_names(old);
  return 0;
}

/* ---- For connects and servers ---------------------------------------------------------------------------- */

const char *aloop__tls_context_fault(const aloop_tls_context_t *context, bool serves,
                                     const char *server_hostname) {
  enum { LONGEST = 253 };
  if (serves)
    return context->role == ALOOP_TLS_SERVER ? NULL
                                             : "options.tls is a client's context; a server needs another";
  if (context->role != ALOOP_TLS_CLIENT) return "options.tls is a server's context; a client needs another";
  bool named = server_hostname != NULL && server_hostname[0] != '\0';
  if (named && strlen(server_hostname) > LONGEST) return "options.server_hostname has more than 253 bytes";
  if (!named && context->verify == ALOOP_TLS_VERIFY_DEFAULT)
    return "whom is the peer to be? Set options.server_hostname, or the context's options.verify to "
           "ALOOP_TLS_VERIFY_CHAIN or ..._NONE";
  return NULL;
}
