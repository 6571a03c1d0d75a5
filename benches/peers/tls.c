/* Makes TLS handshakes in one process with a key of pkcs11-provider: tls URI CERTIFICATE, driven by
 * scripts/bench. Client and server exchange data in memory. The server's Ed25519 key is in software.
 *
 * It prints "ready" and answers "handshake VERSION COUNT", VERSION 12 or 13, with the wall time of COUNT
 * full handshakes in nanoseconds. */
#define _GNU_SOURCE
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/store.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define HOLDS(what)                                                                           \
    do {                                                                                      \
        if (!(what)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                        \
            ERR_print_errors_fp(stderr);                                                      \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

static SSL_CTX *client_context, *server_context;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static EVP_PKEY *key_at(const char *uri)
{
    EVP_PKEY *key = NULL;
    OSSL_STORE_CTX *store = OSSL_STORE_open(uri, NULL, NULL, NULL, NULL);
    HOLDS(store);
    HOLDS(OSSL_STORE_expect(store, OSSL_STORE_INFO_PKEY));
    while (!key && !OSSL_STORE_eof(store)) {
        OSSL_STORE_INFO *info = OSSL_STORE_load(store);
        if (info && OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_PKEY)
            key = OSSL_STORE_INFO_get1_PKEY(info);
        OSSL_STORE_INFO_free(info);
    }
    OSSL_STORE_close(store);
    HOLDS(key);
    return key;
}

static X509 *own_certificate(EVP_PKEY *key)
{
    X509 *made = X509_new();
    HOLDS(made && X509_set_version(made, 2) && ASN1_INTEGER_set(X509_get_serialNumber(made), 1));
    X509_gmtime_adj(X509_getm_notBefore(made), -60);
    X509_gmtime_adj(X509_getm_notAfter(made), 86400);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_ASC, (unsigned char *)"server", -1,
                               -1, 0);
    HOLDS(X509_set_issuer_name(made, X509_get_subject_name(made)));
    HOLDS(X509_set_pubkey(made, key) && X509_sign(made, key, NULL));
    return made;
}

static void handshake(int version)
{
    SSL *client = SSL_new(client_context), *server = SSL_new(server_context);
    BIO *one, *other;
    int done = 0;
    HOLDS(client && server && BIO_new_bio_pair(&one, 0, &other, 0));
    SSL_set_bio(client, one, one);
    SSL_set_bio(server, other, other);
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
    HOLDS(SSL_set_min_proto_version(client, version) && SSL_set_max_proto_version(client, version));
    for (int round = 0; round < 20 && done != 3; round++) {
        int sides[2];
        SSL *both[] = {client, server};
        for (int at = 0; at < 2; at++) {
            sides[at] = SSL_do_handshake(both[at]);
            HOLDS(sides[at] == 1 || SSL_get_error(both[at], sides[at]) == SSL_ERROR_WANT_READ);
        }
        done = (sides[0] == 1) | (sides[1] == 1) << 1;
    }
    HOLDS(done == 3);
    X509 *shown = SSL_get1_peer_certificate(server);
    HOLDS(shown && !SSL_session_reused(client));
    X509_free(shown);
    SSL_free(client);
    SSL_free(server);
}

int main(int count, char **words)
{
    char line[256];
    int version, number;
    HOLDS(count == 3);
    /* The key is loaded first, because this loads the module of the provider. */
    EVP_PKEY *key = key_at(words[1]), *software = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    HOLDS(software);
    X509 *certificate = own_certificate(software);
    client_context = SSL_CTX_new(TLS_client_method());
    server_context = SSL_CTX_new(TLS_server_method());
    HOLDS(client_context && server_context);
    SSL_CTX_set_session_cache_mode(server_context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(server_context, 0);
    SSL_CTX_set_options(server_context, SSL_OP_NO_TICKET);
    HOLDS(SSL_CTX_use_certificate(server_context, certificate));
    HOLDS(SSL_CTX_use_PrivateKey(server_context, software));
    HOLDS(SSL_CTX_use_certificate_file(client_context, words[2], SSL_FILETYPE_PEM) == 1);
    HOLDS(SSL_CTX_use_PrivateKey(client_context, key));
    HOLDS(X509_STORE_add_cert(SSL_CTX_get_cert_store(client_context), certificate));
    SSL_CTX_set_verify(client_context, SSL_VERIFY_PEER, NULL);
    HOLDS(SSL_CTX_load_verify_locations(server_context, words[2], NULL));
    SSL_CTX_set_verify(server_context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "handshake %d %d", &version, &number) == 2) {
            double began = now();
            for (int left = number; left > 0; left--)
                handshake(version == 12 ? TLS1_2_VERSION : TLS1_3_VERSION);
            printf("%.0f\n", now() - began);
        } else
            printf("unknown\n");
        fflush(stdout);
    }
    return 0;
}
