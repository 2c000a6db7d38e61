// Evaluates flags with the official Go server SDK and prints what was evaluated, identified and tracked.
//
// Proves nothing by itself: tests/e2e/test_sdks.py compares the printed numbers with the table and the search answers.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/launchdarkly/go-sdk-common/v3/ldcontext"
	"github.com/launchdarkly/go-sdk-common/v3/ldvalue"
	ld "github.com/launchdarkly/go-server-sdk/v7"
	"github.com/launchdarkly/go-server-sdk/v7/interfaces"
	"github.com/launchdarkly/go-server-sdk/v7/testhelpers/ldtestdata"
)

type single map[string]any

func flagSource() *ldtestdata.TestDataSource {
	source := ldtestdata.DataSource()
	source.Update(source.Flag("checkout-redesign").VariationForAll(true))
	source.Update(source.Flag("banner-text").
		Variations(ldvalue.String("plain"), ldvalue.String("bold"), ldvalue.String("loud")).
		FallthroughVariationIndex(0).
		IfMatch("plan", ldvalue.String("gold")).ThenReturnIndex(2))
	return source
}

func plan(index int) string {
	if index%2 == 0 {
		return "gold"
	}
	return "silver"
}

func groups(prefix string) [][]single {
	var all [][]single
	for i := range 8 {
		all = append(all, []single{{"kind": "user", "key": fmt.Sprintf("%su-%d", prefix, i),
			"name": fmt.Sprintf("User %d", i), "plan": plan(i), "seats": i}})
	}
	for i := range 2 {
		all = append(all, []single{{"kind": "org", "key": fmt.Sprintf("%so-%d", prefix, i),
			"name": fmt.Sprintf("Org %d", i), "region": "eu"}})
	}
	for i := range 2 {
		all = append(all, []single{
			{"kind": "user", "key": fmt.Sprintf("%smu-%d", prefix, i), "plan": "gold"},
			{"kind": "org", "key": fmt.Sprintf("%smo-%d", prefix, i), "region": "us"}})
	}
	return all
}

func toContext(parts []single) ldcontext.Context {
	multi := ldcontext.NewMultiBuilder()
	for _, part := range parts {
		var context ldcontext.Context
		text, err := json.Marshal(part)
		must(err)
		must(json.Unmarshal(text, &context))
		multi.Add(context)
	}
	return multi.Build()
}

func oneRound(client *ld.LDClient, contexts []ldcontext.Context, evaluations map[string]int, number int) {
	for index, context := range contexts {
		// An unknown flag is an error to the SDK and a counted evaluation all the same.
		_, _ = client.BoolVariation("checkout-redesign", context, false)
		_, _ = client.StringVariation("banner-text", context, "none")
		_, _ = client.StringVariation("no-such-flag", context, "fallback")
		for _, key := range []string{"checkout-redesign", "banner-text", "no-such-flag"} {
			evaluations[key]++
		}
		data := ldvalue.ObjectBuild().SetInt("round", number).Build()
		must(client.TrackMetric("checkout", context, float64(index)+0.5, data))
	}
	client.FlushAndWait(10 * time.Second)
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	eventsURL, sdkKey, prefix := os.Args[1], os.Args[2], os.Args[3]
	rounds, err := strconv.Atoi(os.Args[4])
	must(err)
	client, err := ld.MakeCustomClient(sdkKey, ld.Config{
		DataSource:       flagSource(),
		ServiceEndpoints: interfaces.ServiceEndpoints{Events: eventsURL},
	}, 5*time.Second)
	must(err)
	var contexts []ldcontext.Context
	identified := []single{}
	for _, parts := range groups(prefix) {
		contexts = append(contexts, toContext(parts))
		identified = append(identified, parts...)
	}
	for _, context := range contexts {
		must(client.Identify(context))
	}
	evaluations := map[string]int{}
	for number := range rounds {
		oneRound(client, contexts, evaluations, number)
	}
	must(client.Close())
	must(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"evaluations": evaluations, "custom": len(contexts) * rounds, "identified": identified}))
}
