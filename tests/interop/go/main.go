// The official Go client against a running platform: one line for each check, `ok NAME` or `not ok NAME: why`.
//
// KUBECONFIG names the platform; the first argument names how the client speaks: json or protobuf.
// Further arguments name the checks to run; without them all do.
// client-go reads its feature switches from the environment, so what starts this program sets those.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// A check has a namespace of its own and 40 seconds.
type check struct {
	name string
	run  func(t *setting) error
}

type setting struct {
	context.Context
	config    *rest.Config
	client    kubernetes.Interface
	namespace string
}

func configFor(way string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 1000, 1000
	config.UserAgent = "dure-interop"
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	if way == "protobuf" {
		config.ContentType = runtime.ContentTypeProtobuf
		config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	}
	return config, nil
}

func attempt(one check, config *rest.Config) (err error) {
	defer func() {
		if broken := recover(); broken != nil {
			err = fmt.Errorf("panic: %v", broken)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	made, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "go-"},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	defer func() {
		gone := client.CoreV1().Namespaces().Delete(context.Background(), made.Name, metav1.DeleteOptions{})
		err = errors.Join(err, gone)
	}()
	return one.run(&setting{Context: ctx, config: rest.CopyConfig(config), client: client, namespace: made.Name})
}

func main() {
	klog.SetOutput(os.Stderr)
	config, err := configFor(os.Args[1])
	if err != nil {
		fmt.Println("not ok configuration:", err)
		os.Exit(1)
	}
	failed := false
	for _, group := range [][]check{objects, writes, watches, machinery, access, encodings} {
		for _, one := range group {
			if len(os.Args) > 2 && !slices.Contains(os.Args[2:], one.name) {
				continue
			}
			if err := attempt(one, config); err != nil {
				failed = true
				fmt.Printf("not ok %s: %q\n", one.name, err.Error())
			} else {
				fmt.Println("ok", one.name)
			}
		}
	}
	if failed {
		os.Exit(1)
	}
}
