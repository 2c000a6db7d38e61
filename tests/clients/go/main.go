// Makes the calls that it reads with the official Go REST client and prints what the client made of the answers.
//
// Proves nothing by itself: tests/e2e/test_clients.py says what to call and what to expect. Operations and their parameters
// are found by their names, as the client has a builder of its own for each.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strings"

	ldapi "github.com/launchdarkly/api-client-go/v22"
)

type call struct {
	Operation  string
	URL        string
	Token      string
	Path       []string
	Parameters map[string]json.RawMessage
}

type outcome map[string]any

func fault(err error) outcome {
	return outcome{"fault": err.Error()}
}

func exported(name string) string {
	return strings.ToUpper(name[:1]) + name[1:]
}

// operation is the method of the client that begins a call.
func operation(client *ldapi.APIClient, name string) reflect.Value {
	for _, service := range []any{client.ContextsApi, client.UsersApi} {
		if method := reflect.ValueOf(service).MethodByName(exported(name)); method.IsValid() {
			return method
		}
	}
	return reflect.Value{}
}

// built is the request with its parameters.
func built(begin reflect.Value, wanted call) (reflect.Value, error) {
	key := map[string]ldapi.APIKey{"ApiKey": {Key: wanted.Token}}
	places := []reflect.Value{reflect.ValueOf(context.WithValue(context.Background(), ldapi.ContextAPIKeys, key))}
	for _, place := range wanted.Path {
		places = append(places, reflect.ValueOf(place))
	}
	request := begin.Call(places)[0]
	for name, text := range wanted.Parameters {
		set := request.MethodByName(exported(name))
		if !set.IsValid() {
			return request, fmt.Errorf("%s has no %s", wanted.Operation, name)
		}
		value := reflect.New(set.Type().In(0))
		if err := json.Unmarshal(text, value.Interface()); err != nil {
			return request, err
		}
		request = set.Call([]reflect.Value{value.Elem()})[0]
	}
	return request, nil
}

// refusal tells an error that the server answered from one that the client ran into.
func refusal(response *http.Response, err error) outcome {
	var answered *ldapi.GenericOpenAPIError
	if response == nil || response.StatusCode < 300 || !errors.As(err, &answered) {
		return fault(err)
	}
	if answered.Model() != nil {
		return outcome{"status": response.StatusCode, "error": answered.Model()}
	}
	// The client decodes the statuses that it knows of an operation, and names only the status for others.
	if answered.Error() != response.Status {
		return fault(answered)
	}
	return outcome{"status": response.StatusCode, "error": json.RawMessage(answered.Body())}
}

func perform(line []byte) outcome {
	var wanted call
	if err := json.Unmarshal(line, &wanted); err != nil {
		return fault(err)
	}
	configuration := ldapi.NewConfiguration()
	configuration.Servers = ldapi.ServerConfigurations{{URL: wanted.URL}}
	begin := operation(ldapi.NewAPIClient(configuration), wanted.Operation)
	if !begin.IsValid() {
		return outcome{"absent": true}
	}
	request, err := built(begin, wanted)
	if err != nil {
		return fault(err)
	}
	// The answer, if there is one, the HTTP response, the error.
	results := request.MethodByName("Execute").Call(nil)
	response, _ := results[len(results)-2].Interface().(*http.Response)
	if err, isError := results[len(results)-1].Interface().(error); isError {
		return refusal(response, err)
	}
	if len(results) == 2 {
		return outcome{"value": nil}
	}
	return outcome{"value": results[0].Interface()}
}

func main() {
	lines := bufio.NewReader(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		if err := answers.Encode(perform(line)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
