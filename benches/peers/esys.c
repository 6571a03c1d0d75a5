/* Signs through ESYS, without a PKCS#11 module: esys TCTI ec|rsa persistent|loaded|file open|value
 * [HANDLE], driven by scripts/bench like host.c.
 *
 * Each signature has the minimum number of TPM commands: TPM2_Sign; for a key in a file TPM2_Load, Sign
 * and FlushContext; for a key with an authorisation value StartAuthSession and Sign. The keys are children
 * of the storage root key. "persistent" puts the key into HANDLE until the program ends. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tss2/tss2_esys.h>
#include <tss2/tss2_tctildr.h>

#define OK(code)                                                                              \
    do {                                                                                      \
        TSS2_RC got_ = (code);                                                                \
        if (got_) {                                                                           \
            fprintf(stderr, "%s:%d: %s gave 0x%x\n", __FILE__, __LINE__, #code, got_);        \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)
#define MOST 65536
#define SRK 0x81000001

static ESYS_CONTEXT *esys;
static ESYS_TR parent, key = ESYS_TR_NONE;
static TPM2B_PUBLIC *public_half;
static TPM2B_PRIVATE *private_half;
static TPMT_SIG_SCHEME scheme;
static int is_in_file, has_value;
static double times[MOST];

static double now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int ascending(const void *left, const void *right)
{
    double one = *(const double *)left, other = *(const double *)right;
    return (one > other) - (one < other);
}

static void sign(void)
{
    TPM2B_DIGEST digest = {.size = 32, .buffer = {0x5A}};
    TPMT_TK_HASHCHECK ticket = {.tag = TPM2_ST_HASHCHECK, .hierarchy = TPM2_RH_NULL};
    TPMT_SIGNATURE *signature;
    ESYS_TR session = ESYS_TR_PASSWORD;
    if (is_in_file)
        OK(Esys_Load(esys, parent, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, private_half, public_half,
                     &key));
    if (has_value) {
        TPMT_SYM_DEF none = {.algorithm = TPM2_ALG_NULL};
        OK(Esys_StartAuthSession(esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
                                 NULL, TPM2_SE_HMAC, &none, TPM2_ALG_SHA256, &session));
        OK(Esys_TRSess_SetAttributes(esys, session, 0, TPMA_SESSION_CONTINUESESSION));
    }
    OK(Esys_Sign(esys, key, session, ESYS_TR_NONE, ESYS_TR_NONE, &digest, &scheme, &ticket, &signature));
    Esys_Free(signature);
    if (is_in_file)
        OK(Esys_FlushContext(esys, key));
}

static TPM2B_PUBLIC template(int is_rsa)
{
    TPM2B_PUBLIC area = {.publicArea = {
                             .type = is_rsa ? TPM2_ALG_RSA : TPM2_ALG_ECC,
                             .nameAlg = TPM2_ALG_SHA256,
                             .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT |
                                                 TPMA_OBJECT_SENSITIVEDATAORIGIN | TPMA_OBJECT_USERWITHAUTH |
                                                 TPMA_OBJECT_NODA | TPMA_OBJECT_SIGN_ENCRYPT,
                         }};
    TPMT_PUBLIC *public = &area.publicArea;
    if (is_rsa) {
        public->parameters.rsaDetail.symmetric.algorithm = TPM2_ALG_NULL;
        public->parameters.rsaDetail.scheme.scheme = TPM2_ALG_NULL;
        public->parameters.rsaDetail.keyBits = 2048;
    } else {
        public->parameters.eccDetail.symmetric.algorithm = TPM2_ALG_NULL;
        public->parameters.eccDetail.scheme.scheme = TPM2_ALG_NULL;
        public->parameters.eccDetail.kdf.scheme = TPM2_ALG_NULL;
        public->parameters.eccDetail.curveID = TPM2_ECC_NIST_P256;
    }
    return area;
}

static void evict(ESYS_TR what, TPM2_HANDLE handle)
{
    ESYS_TR kept;
    OK(Esys_EvictControl(esys, ESYS_TR_RH_OWNER, what, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, handle,
                         &kept));
    key = kept;
}

static void made(int is_rsa)
{
    TPM2B_SENSITIVE_CREATE secret = {0};
    TPM2B_PUBLIC area = template(is_rsa);
    TPM2B_DATA outside = {0};
    TPML_PCR_SELECTION pcrs = {0};
    OK(Esys_TR_FromTPMPublic(esys, SRK, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &parent));
    if (has_value) {
        secret.sensitive.userAuth.size = 32;
        memset(secret.sensitive.userAuth.buffer, 7, 32);
    }
    OK(Esys_Create(esys, parent, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &secret, &area, &outside,
                   &pcrs, &private_half, &public_half, NULL, NULL, NULL));
    if (!is_in_file)
        OK(Esys_Load(esys, parent, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, private_half, public_half,
                     &key));
}

int main(int count, char **words)
{
    TSS2_TCTI_CONTEXT *tcti = NULL;
    TPM2_HANDLE handle = 0;
    char line[256];
    int number;
    if (count < 5)
        return 2;
    int is_rsa = !strcmp(words[2], "rsa"), is_persistent = !strcmp(words[3], "persistent");
    is_in_file = !strcmp(words[3], "file");
    has_value = !strcmp(words[4], "value");
    scheme.scheme = is_rsa ? TPM2_ALG_RSASSA : TPM2_ALG_ECDSA;
    scheme.details.any.hashAlg = TPM2_ALG_SHA256;
    OK(Tss2_TctiLdr_Initialize(words[1], &tcti));
    OK(Esys_Initialize(&esys, tcti, NULL));
    made(is_rsa);
    if (is_persistent) {
        ESYS_TR loaded = key;
        handle = count > 5 ? strtoul(words[5], NULL, 16) : 0x81000900;
        evict(loaded, handle);
        OK(Esys_FlushContext(esys, loaded));
    }
    if (has_value) {
        TPM2B_AUTH value = {.size = 32};
        memset(value.buffer, 7, 32);
        OK(Esys_TR_SetAuth(esys, key, &value));
    }
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "sign %d", &number) == 1 && number > 0 && number <= MOST) {
            double cpu = now(CLOCK_PROCESS_CPUTIME_ID);
            for (int at = 0; at < number; at++) {
                double began = now(CLOCK_MONOTONIC);
                sign();
                times[at] = now(CLOCK_MONOTONIC) - began;
            }
            cpu = (now(CLOCK_PROCESS_CPUTIME_ID) - cpu) / number;
            qsort(times, number, sizeof *times, ascending);
            printf("%.0f %.0f %.0f %.0f\n", times[number / 2], times[number * 99 / 100], times[0], cpu);
        } else
            printf("unknown\n");
        fflush(stdout);
    }
    if (is_persistent)
        evict(key, handle);
    else if (!is_in_file)
        OK(Esys_FlushContext(esys, key));
    Esys_Finalize(&esys);
    Tss2_TctiLdr_Finalize(&tcti);
    return 0;
}
