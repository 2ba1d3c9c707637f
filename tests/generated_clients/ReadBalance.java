import java.time.OffsetDateTime;
import java.util.Map;
import org.openapitools.client.ApiClient;
import org.openapitools.client.api.AccountsApi;
import org.openapitools.client.model.BalanceBody;
import org.openapitools.client.model.DebitMovement;

/** Debits an account and reads its balance through the client that openapi-generator makes for Java. */
public class ReadBalance {
  public static void main(String[] arguments) throws Exception {
    Map<String, String> environment = System.getenv();
    String account = environment.get("ACCOUNT");
    ApiClient client = new ApiClient();
    client.setBasePath(environment.get("API_URL"));
    client.setApiKey(environment.get("API_KEY"));
    AccountsApi accounts = new AccountsApi(client);

    DebitMovement debit =
        new DebitMovement().amount("30").reference("java").idempotencyKey(environment.get("IDEMPOTENCY_KEY"));
    accounts.debitCustomerCreditsAccount(account, debit, null);
    BalanceBody now = accounts.getCustomerCreditsAccountBalance(account, null);
    BalanceBody then =
        accounts.getCustomerCreditsAccountBalance(account, OffsetDateTime.parse("2100-01-01T00:00:00Z"));
    System.out.printf(
        "{\"balance\": \"%s\", \"updated_at\": %d, \"now_as_of\": %s, \"later\": \"%s\", \"later_as_of\": %d}%n",
        now.getBalance(),
        now.getUpdatedAt().toInstant().toEpochMilli(),
        now.getAsOf(),
        then.getBalance(),
        then.getAsOf().toInstant().toEpochMilli());
  }
}
