// Debits an account and reads its balance through the client that openapi-generator makes for Go.
package main

import (
	"context"
	"encoding/json"
	"os"
	"time"

	openapi "github.com/GIT_USER_ID/GIT_REPO_ID"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	account := os.Getenv("ACCOUNT")
	configuration := openapi.NewConfiguration()
	configuration.Servers = openapi.ServerConfigurations{{URL: os.Getenv("API_URL")}}
	keys := map[string]openapi.APIKey{"api_key": {Key: os.Getenv("API_KEY")}}
	ctx := context.WithValue(context.Background(), openapi.ContextAPIKeys, keys)
	accounts := openapi.NewAPIClient(configuration).AccountsAPI

	debit := openapi.NewDebitMovement("30", "go", os.Getenv("IDEMPOTENCY_KEY"))
	_, _, err := accounts.DebitCustomerCreditsAccount(ctx, account).DebitMovement(*debit).Execute()
	must(err)
	now, _, err := accounts.GetCustomerCreditsAccountBalance(ctx, account).Execute()
	must(err)
	later := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	then, _, err := accounts.GetCustomerCreditsAccountBalance(ctx, account).At(later).Execute()
	must(err)
	must(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"balance":     now.Balance,
		"updated_at":  now.UpdatedAt.UnixMilli(),
		"now_as_of":   now.AsOf,
		"later":       then.Balance,
		"later_as_of": then.AsOf.UnixMilli(),
	}))
}
