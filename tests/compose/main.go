// Reads files of the container set-up with the library that Docker Compose itself uses, and prints what they say as JSON:
//
//	compose-check project docker-compose.yml   checked against the schema, variables filled in, defaults resolved
//	compose-check yaml FILE                    any other YAML file, as it is
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
	"go.yaml.in/yaml/v4"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 2 {
		return fmt.Errorf("usage: compose-check project|yaml FILE")
	}
	var said any
	var err error
	switch arguments[0] {
	case "project":
		said, err = project(arguments[1])
	case "yaml":
		said, err = plain(arguments[1])
	default:
		err = fmt.Errorf("%s: expected project or yaml", arguments[0])
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(said)
}

func project(path string) (any, error) {
	options, err := cli.NewProjectOptions([]string{path}, cli.WithName("tidegate"))
	if err != nil {
		return nil, err
	}
	return options.LoadProject(context.Background())
}

func plain(path string) (any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var said any
	return said, yaml.Unmarshal(text, &said)
}
